"""Generates the protobuf modules and compiles the hot path while the package is built; all else is in pyproject.toml.

mypyc makes C extensions of annotated modules as they are. A wheel holds them if a C compiler was there, else the same
modules in Python, at two to three times the CPU; an editable install never does. `EPP_PURE=1` compiles nothing.
"""

import os
import shutil
import sys

from grpc_tools import protoc
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

PROTO = "proto/vllm_engine.proto"
TARGET = "epp/bodies"
COMPILED = (
    "epp/account.py",
    "epp/bodies/jsonbody.py",
    "epp/bodies/lines.py",
    "epp/bodies/openai.py",
    "epp/bodies/registry.py",
    "epp/bodies/usage.py",
    "epp/decision.py",
    "epp/endpoints.py",
    "epp/exchange.py",
    "epp/extproc/dialogue.py",
    "epp/extproc/events.py",
    "epp/extproc/header_walk.py",
    "epp/extproc/held.py",
    "epp/extproc/http2_assembly.py",
    "epp/extproc/http2_calls.py",
    "epp/extproc/http2_connection.py",
    "epp/extproc/http2_control.py",
    "epp/extproc/http2_headers.py",
    "epp/extproc/http2_hpack.py",
    "epp/extproc/http2_hpack_tables.py",
    "epp/extproc/http2_limits.py",
    "epp/extproc/http2_protocol.py",
    "epp/extproc/http2_stream.py",
    "epp/extproc/http2_streams.py",
    "epp/extproc/http2_upkeep.py",
    "epp/extproc/http2_wire.py",
    "epp/extproc/metadata.py",
    "epp/extproc/replies.py",
    "epp/extproc/stream.py",
    "epp/extproc/streams.py",
    "epp/extproc/wire.py",
    "epp/feeds/pace.py",
    "epp/feeds/promtext.py",
    "epp/feeds/reading.py",
    "epp/feeds/turns.py",
    "epp/headers.py",
    "epp/hooks.py",
    "epp/obs/decisions.py",
    "epp/obs/flows.py",
    "epp/obs/metrics.py",
    "epp/obs/observer.py",
    "epp/obs/series.py",
    "epp/plan.py",
    "epp/pool/health.py",
    "epp/pool/ledger.py",
    "epp/pool/load.py",
    "epp/pool/prefix.py",
    "epp/pool/prefix_blocks.py",
    "epp/pool/prefix_cells.py",
    "epp/pool/prefix_hash.py",
    "epp/pool/prefix_recency.py",
    "epp/pool/prefix_sets.py",
    "epp/pool/table.py",
    "epp/pool/unseen.py",
    "epp/profiles.py",
    "epp/request.py",
    "epp/rewrites.py",
    "epp/route.py",
    "epp/rules.py",
    "epp/scheduler.py",
    "epp/suspension.py",
    "scorers/latency_model.py",
    "scorers/latency_predictor.py",
    "scorers/packing.py",
    "scorers/prefix_lookup.py",
    "scorers/spread.py",
)
"""What a request or a scrape passes through. docs/adr/0028-compiled-by-mypyc.md tells what such modules keep to."""


class BuildWithProtos(build_py):
    """Writes into the source tree, so that an editable install finds the same modules as a wheel."""

    def run(self) -> None:
        command = ["protoc", "-Iproto", f"--python_out={TARGET}", f"--pyi_out={TARGET}", PROTO]
        if protoc.main(command) != 0:
            raise SystemExit(f"protoc failed on {PROTO}; its message is above")
        super().run()

    def get_source_files(self) -> list[str]:
        """What a source distribution needs besides the modules."""
        return [*super().get_source_files(), PROTO]


def extensions() -> list[Extension]:
    """None where nothing is built that could hold them, as in an editable install."""
    if os.environ.get("EPP_PURE") == "1" or not {"bdist_wheel", "build", "build_ext"} & set(sys.argv):
        return []
    compiler = os.environ.get("CC", "cc").split()[0]
    if not shutil.which(compiler):
        sys.stderr.write(f"nothing is compiled: there is no C compiler {compiler!r} (Debian package gcc)\n")
        return []
    from mypyc.build import mypycify

    made: list[Extension] = mypycify(list(COMPILED), opt_level="2", multi_file=True, group_name="epp")
    for extension in made:
        # If it fails setuptools warns, and the wheel holds the modules in Python. What another compiler warns of is not
        # ours to mend, and line numbers of generated C help nobody.
        extension.optional = True
        # A list of its own: mypyc hands the same one to all.
        extension.extra_compile_args = [*extension.extra_compile_args, "-Wno-error", "-g0"]
    return made


setup(cmdclass={"build_py": BuildWithProtos}, ext_modules=extensions())
