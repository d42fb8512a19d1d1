"""Writes a tiny Llama with random weights and its tokenizer. Run by the Python that has vLLM: `... DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = "the quick brown fox jumps over the lazy dog while many small servers answer long questions about everything"
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]


def main() -> None:
    folder = Path(sys.argv[1])
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    _model(len(tokenizer), tokenizer.eos_token_id).to(torch.bfloat16).save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from one sentence: any text is a sequence of its tokens."""
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet)
    learnt.train_from_iterator([WORDS] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learnt, eos_token=SPECIAL[0], pad_token=SPECIAL[1])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _model(vocabulary: int, end: int) -> LlamaForCausalLM:
    """Two layers; vLLM's CPU attention refuses heads smaller than 32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=8192,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end + 1,
        )
    )


if __name__ == "__main__":
    main()
