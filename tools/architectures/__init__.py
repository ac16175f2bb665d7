"""The architectures that make_oracle.py builds, one entry each.

A new architecture is one new entry in the file of its kind (dense, experts, recurrent, encoders):

    "name": Architecture("model_type", lambda h: dict(...), "what this one exercises"),

`model_type` names the configuration class in `transformers` (`AutoConfig.for_model`). The function takes the
hidden size and returns that class's arguments. Derive every other size from the hidden size, so that
`--hidden` scales the whole model. Choose a shape that takes every path of the architecture within 96 tokens:
more than one block of each kind, fewer KV heads than heads, a window shorter than the prompt, multipliers
other than one. make_oracle.py sets what all models share: the vocabulary, float32, untied embeddings.

The GGUF converter sometimes reads other names than the installed `transformers` writes. `for_converter` then
takes the saved configuration and returns what to change in it; REMOVED removes the key.
"""

from .common import REMOVED, VOCABULARY, Architecture, Config
from .dense import DENSE
from .encoders import ENCODERS
from .experts import EXPERTS
from .recurrent import RECURRENT

ARCHITECTURES = DENSE | EXPERTS | RECURRENT | ENCODERS

__all__ = ["ARCHITECTURES", "REMOVED", "VOCABULARY", "Architecture", "Config"]
