"""How many tokens an image, a video or an audio clip takes in a prompt, estimated.

Settings of 0 or less stand for the default, as in the llm-d router.
"""

from __future__ import annotations

from math import inf
from typing import Literal, TypeVar

from msgspec import Struct

from epp import Media, Request
from scorers.images import dimensions

WIDTH, HEIGHT = 640, 360
PIXELS_PER_TOKEN = 1024
DURATION_S = 10.0
SAMPLE_FPS = 2.0
SOURCE_FPS = 24.0
AUDIO_CHARACTERS_PER_TOKEN = 4
MOST_DIGITS = 6
"""A side of a million pixels is nobody's."""
MOST = 1e9
"""Of seconds or frames a second: who asks for more means nothing, and a product of such numbers is no count."""
VIDEO_FPS = "x-llm-d-video-fps"
VIDEO_DURATION = "x-llm-d-video-duration-seconds"
VIDEO_RESOLUTION = "x-llm-d-video-resolution"
T = TypeVar("T", int, float)


class Resolution(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Pixels."""

    width: int = 0
    height: int = 0


class StaticImage(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Every image counts the same."""

    static_token: int = 0


class Dynamic(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Pixels that make one token."""

    factor: int = 0


class ImageEstimate(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Tokens of an image: by its size (dynamic) or fixed (static)."""

    mode: Literal["", "dynamic", "static"] = ""
    default_resolution: Resolution = Resolution()
    """Where the size can't be read."""
    static: StaticImage = StaticImage()
    dynamic: Dynamic = Dynamic()


class StaticFrame(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Every frame counts the same."""

    num_tokens_per_frame: int = 0


class FrameTokens(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Tokens of one frame: by its size (dynamic) or fixed (static)."""

    mode: Literal["", "dynamic", "static"] = ""
    static: StaticFrame = StaticFrame()
    dynamic: Dynamic = Dynamic()


class Sampled(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Frames are taken at a rate of the model's, then merged in groups."""

    sample_fps: float = 0.0
    temporal_patch_size: int = 0


class Strided(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Every nth frame of the source is taken."""

    default_source_fps: float = 0.0
    frame_stride: int = 0


class Frames(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How many frames of a video the model sees."""

    mode: Literal["", "sampled", "strided"] = ""
    min_frames: int = 0
    max_frames: int = 0
    sampled: Sampled = Sampled()
    strided: Strided = Strided()


class VideoEstimate(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Tokens of a video: frames × tokens of a frame."""

    default_resolution: Resolution = Resolution()
    default_duration: float = 0.0
    """Seconds, where the request does not say."""
    tokens_per_frame: FrameTokens = FrameTokens()
    frames: Frames = Frames()
    max_video_tokens: int = 0


class Estimate(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How media are counted."""

    image: ImageEstimate = ImageEstimate()
    video: VideoEstimate = VideoEstimate()


def placeholders(media: Media, request: Request, estimate: Estimate) -> int:
    """Tokens that `media` takes, at least 1. Headers of the request may tell a video's size, length and rate."""
    if media.kind == "image":
        return max(1, _image_tokens(media.content, estimate.image))
    if media.kind == "video":
        return max(1, _video_tokens(request, estimate.video))
    return max(1, -(-len(media.content) // AUDIO_CHARACTERS_PER_TOKEN))


def _image_tokens(content: str, image: ImageEstimate) -> int:
    if image.mode == "static":
        return image.static.static_token
    width, height = dimensions(content) or _sides(image.default_resolution)
    return width * height // _or(image.dynamic.factor, PIXELS_PER_TOKEN)


def _video_tokens(request: Request, video: VideoEstimate) -> int:
    tokens = _frames(request, video) * max(1, _frame_tokens(request, video))
    return min(tokens, video.max_video_tokens) if video.max_video_tokens > 0 else tokens


def _frame_tokens(request: Request, video: VideoEstimate) -> int:
    if video.tokens_per_frame.mode == "static":
        return video.tokens_per_frame.static.num_tokens_per_frame
    width, height = parse_resolution(request.header(VIDEO_RESOLUTION)) or _sides(video.default_resolution)
    return width * height // _or(video.tokens_per_frame.dynamic.factor, PIXELS_PER_TOKEN)


def _frames(request: Request, video: VideoEstimate) -> int:
    """Frames of a video, in groups if the model merges them."""
    frames = video.frames
    duration = _positive(request.header(VIDEO_DURATION)) or _or(video.default_duration, DURATION_S)
    if frames.mode == "strided":
        fps = _positive(request.header(VIDEO_FPS)) or _or(frames.strided.default_source_fps, SOURCE_FPS)
        return _clamped(int(duration * fps) // max(1, frames.strided.frame_stride), frames)
    sampled = _clamped(int(duration * _or(frames.sampled.sample_fps, SAMPLE_FPS)), frames)
    return sampled // max(1, frames.sampled.temporal_patch_size)


def _clamped(count: int, frames: Frames) -> int:
    count = max(count, frames.min_frames)
    return min(count, frames.max_frames) if frames.max_frames > 0 else count


def _sides(resolution: Resolution) -> tuple[int, int]:
    return _or(resolution.width, WIDTH), _or(resolution.height, HEIGHT)


def _or(setting: T, default: T) -> T:
    return setting if setting > 0 else default


def parse_resolution(text: str) -> tuple[int, int] | None:
    """(width, height) of `WxH`, in either case and with blanks around the numbers; None for anything else."""
    width, x, height = (part.strip() for part in text.lower().partition("x"))
    if not (x and _is_count(width) and _is_count(height)):
        return None
    return int(width), int(height)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and int(text) > 0


def _positive(text: str) -> float:
    """A number above 0, MOST at most; 0 for anything else."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return min(value, MOST) if 0.0 < value < inf else 0.0
