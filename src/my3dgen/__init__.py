"""Personal 3D face models: photos in, a small file out, and everything that file can do.

The public list is loaded on first use, so `import my3dgen` itself is cheap.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from my3dgen.apps.edit import edit
    from my3dgen.apps.interpolate import interpolate
    from my3dgen.apps.mesh import export_mesh
    from my3dgen.apps.orbit import orbit
    from my3dgen.apps.render import render
    from my3dgen.apps.sample import sample
    from my3dgen.faces.album import read_album
    from my3dgen.invert import invert
    from my3dgen.peft_format import export_peft, import_peft
    from my3dgen.person import Person
    from my3dgen.personalize import personalize
    from my3dgen.prior.store import load_prior

__version__ = "0.1.0"

__all__ = [
    "Person",
    "edit",
    "export_mesh",
    "export_peft",
    "import_peft",
    "interpolate",
    "invert",
    "load_prior",
    "orbit",
    "personalize",
    "read_album",
    "render",
    "sample",
]

_HOME = {
    "Person": "person",
    "edit": "apps.edit",
    "export_mesh": "apps.mesh",
    "export_peft": "peft_format",
    "import_peft": "peft_format",
    "interpolate": "apps.interpolate",
    "invert": "invert",
    "load_prior": "prior.store",
    "orbit": "apps.orbit",
    "personalize": "personalize",
    "read_album": "faces.album",
    "render": "apps.render",
    "sample": "apps.sample",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'my3dgen' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"my3dgen.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(types.ModuleType):
    """Keeps `my3dgen.invert` and `my3dgen.personalize` the functions of those names.

    Importing a submodule binds it as an attribute of its package, which would hide the function.
    `from my3dgen.invert import ...` does not go through that attribute and works as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
