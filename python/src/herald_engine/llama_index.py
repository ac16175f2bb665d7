"""LlamaIndex's language model over HERALD: `pip install herald-engine[llama-index]`."""

from __future__ import annotations

from typing import Any, Optional

from llama_index.core.bridge.pydantic import PrivateAttr  # type: ignore[import-not-found, unused-ignore]
from llama_index.llms.openai_like import OpenAILike  # type: ignore[import-not-found, import-untyped, unused-ignore]

from ._options import Path
from .server import Server


class Herald(OpenAILike):  # type: ignore[misc, unused-ignore]
    """LlamaIndex's `OpenAILike` on a HERALD server, which it starts unless it is given one.

        model = Herald.from_model("model.gguf")              # starts a server, which ends with close()
        model = Herald(api_base="http://127.0.0.1:8080/v1")  # uses one that runs

    `context_window` is what LlamaIndex fits prompts to; the model's file says what it really is.
    """

    _server: Optional[Server] = PrivateAttr(default=None)

    def __init__(self, **arguments: Any) -> None:
        """Takes the arguments of `OpenAILike`; a server with one model answers to any name."""
        usual = {
            "model": "herald",
            "api_key": "none",
            "api_base": "http://127.0.0.1:8080/v1",
            "is_chat_model": True,
            "is_function_calling_model": True,
        }
        super().__init__(**{**usual, **arguments})

    @classmethod
    def from_model(cls, model: Path, *, server_options: Optional[dict[str, Any]] = None, **arguments: Any) -> Herald:
        """Starts a server with a model file (or a name that `pull` knows). `server_options` are those of `Server`."""
        server = Server(model, **(server_options or {}))
        try:
            herald = cls(api_base=server.openai_url, **arguments)
        except BaseException:
            server.kill()
            raise
        herald._server = server
        return herald

    @property
    def server(self) -> Optional[Server]:
        """The server that it started."""
        return self._server

    def close(self) -> None:
        """Stops the server that it started."""
        if self._server is not None:
            self._server.stop()
