"""Generates the protobuf modules while the package is built; everything else is in pyproject.toml."""

from grpc_tools import protoc
from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = "proto/vllm_engine.proto"
TARGET = "epp/bodies"


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


setup(cmdclass={"build_py": BuildWithProtos})
