"""LangChain's chat model over HERALD: `pip install herald-engine[langchain]`."""

from __future__ import annotations

from typing import Any, Optional

from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr, SecretStr

from ._options import Path
from .server import Server


class ChatHerald(ChatOpenAI):
    """LangChain's `ChatOpenAI` on a HERALD server, which it starts unless it is given one.

        model = ChatHerald.from_model("model.gguf")              # starts a server, which ends with close()
        model = ChatHerald(base_url="http://127.0.0.1:8080/v1")  # uses one that runs

    Tools, structured output and streaming are `ChatOpenAI`'s.
    """

    _server: Optional[Server] = PrivateAttr(default=None)

    def __init__(self, **arguments: Any) -> None:
        """Takes the arguments of `ChatOpenAI`; a server with one model answers to any name."""
        arguments.setdefault("model", "herald")
        if "api_key" not in arguments and "openai_api_key" not in arguments:
            # Clients want one, whether the server does or not.
            arguments["api_key"] = SecretStr("none")
        if "base_url" not in arguments and "openai_api_base" not in arguments:
            arguments["base_url"] = "http://127.0.0.1:8080/v1"
        super().__init__(**arguments)

    @classmethod
    def from_model(
        cls, model: Path, *, server_options: Optional[dict[str, Any]] = None, **arguments: Any
    ) -> ChatHerald:
        """Starts a server with a model file (or a name that `pull` knows). `server_options` are those of `Server`."""
        server = Server(model, **(server_options or {}))
        try:
            chat = cls(base_url=server.openai_url, **arguments)
        except BaseException:
            server.kill()
            raise
        chat._server = server
        return chat

    @property
    def server(self) -> Optional[Server]:
        """The server that it started."""
        return self._server

    def close(self) -> None:
        """Stops the server that it started."""
        if self._server is not None:
            self._server.stop()
