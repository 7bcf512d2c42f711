"""An extension of Griffe: the signature of a pydantic model is made of its fields, as type checkers see it.

Griffe reads the code without running it, and finds `__init__(self, **values)`.
"""  # noqa: INP001 - a file of MkDocs, in no package

from __future__ import annotations

from typing import Any

import griffe

_MODELS = {"BaseModel", "BaseSettings"}


class PydanticSignatures(griffe.Extension):
    """Gives each class that directly extends a pydantic model its fields as keyword arguments."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Replace the parameters of `__init__`."""
        if not _MODELS & {str(base) for base in cls.bases}:
            return
        parameters = [griffe.Parameter("self", kind=griffe.ParameterKind("positional or keyword"))]
        for name, field in cls.attributes.items():
            if field.annotation is None or name.startswith("_") or "property" in field.labels:
                continue
            parameters.append(
                griffe.Parameter(
                    name,
                    annotation=_without_rules(field.annotation, cls.module),
                    kind=griffe.ParameterKind("keyword-only"),
                    default=_default(field.value),
                )
            )
        init = griffe.Function("__init__", parameters=griffe.Parameters(*parameters), lineno=cls.lineno)
        cls.set_member("__init__", init)


def _without_rules(annotation: Any, module: griffe.Module) -> Any:
    """Return `X` for `Annotated[X, rules]`, also inside a union and behind a name of the module."""
    if isinstance(annotation, griffe.ExprName) and annotation.name in module.members:
        alias = module.members[annotation.name]
        value = alias.value if isinstance(alias, griffe.Attribute) else None
        return _without_rules(value, module) if isinstance(value, griffe.ExprSubscript) else annotation
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
        arguments = annotation.slice
        first = arguments.elements[0] if isinstance(arguments, griffe.ExprTuple) else arguments
        return _without_rules(first, module)
    if isinstance(annotation, griffe.ExprBinOp):
        left, right = (_without_rules(side, module) for side in (annotation.left, annotation.right))
        return griffe.ExprBinOp(left, annotation.operator, right)
    return annotation


def _default(value: Any) -> Any:
    """Return what a field is when it is not given; one that is computed of others is not."""
    return "..." if isinstance(value, griffe.ExprCall) and str(value.function) == "Field" else value
