"""A kubeconfig for one server and one user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def write(path: Path | str, url: str, token: str = "", ca: Path | str | None = None) -> Path:
    """Without a CA an https server is not verified. kubectl sends a token over https only."""
    cluster: dict[str, Any] = {"server": url}
    if url.startswith("https:"):
        cluster |= {"certificate-authority": str(ca)} if ca else {"insecure-skip-tls-verify": True}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token} if token else {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    Path(path).write_text(yaml.safe_dump(content))
    return Path(path)
