"""Small faults that a test suite must notice: one changed operator, constant, sign, condition, index or argument order.

What cannot change a result is left alone: docstrings and annotations, the text of errors, the sizes of blocks of work
(assignments from or to names that begin with _CHUNK), and keywords that only choose a route (``optimize``, ``copy``)
or repeat a check (``strict``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitXor: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_TWINS = {"min": "max", "any": "all", "argmin": "argmax", "minimum": "maximum", "floor": "ceil", "triu": "tril"}
_TWINS |= {twin: name for name, twin in _TWINS.items()}
_SYMMETRIC = frozenset({"max", "min", "maximum", "minimum", "hypot"})
_ROUTES = frozenset({"optimize", "copy", "strict"})
_BLOCKS = "_CHUNK"


@dataclass(frozen=True)
class Mutant:
    """One fault: bytes `begin` to `end` of the file at `path` replaced; `lines` are those that must run to see it."""

    path: str
    operator: str
    line: int
    begin: int
    end: int
    original: str
    replacement: str
    lines: tuple[int, int]

    def apply(self, source: bytes) -> bytes:
        """Return the source with the fault in it."""
        return source[: self.begin] + self.replacement.encode() + source[self.end :]

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.operator}: {_short(self.original)} -> {_short(self.replacement)}"


def mutants_of(root: Path, path: str) -> list[Mutant]:
    """Return every mutant of one file, in the order of the source."""
    source = (root / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        return starts[line - 1] + column

    found = []
    for node, statement, operator, new in _faults(ast.parse(source)):
        begin, end = offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)
        text = ast.unparse(new)
        replacement = text if isinstance(new, ast.stmt) else f"({text})"
        last = node.end_lineno if hasattr(statement, "body") else statement.end_lineno
        fault = Mutant(
            path, operator, node.lineno, begin, end, source[begin:end].decode(), replacement, (statement.lineno, last)
        )
        try:
            compile(fault.apply(source), path, "exec")
        except SyntaxError:
            continue
        found.append(fault)
    return sorted(found, key=lambda m: (m.begin, m.end, m.operator, m.replacement))


def _faults(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.stmt, str, ast.AST]]:
    """Yield node, statement that holds it, name of the change, and what to put in the node's place."""
    pending: list[tuple[ast.AST, ast.stmt | None]] = [(tree, None)]
    while pending:
        node, statement = pending.pop()
        if isinstance(node, ast.stmt):
            statement = node
        if isinstance(node, ast.expr | ast.Return) and statement is not None:
            for operator, new in _changes(node):
                yield node, statement, operator, new
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            yield node.test, statement or node, "condition negated", ast.UnaryOp(ast.Not(), node.test)
        if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
            new = deepcopy(node)
            new.op = _ARITHMETIC[type(node.op)]()
            yield node, node, "arithmetic", new
        pending += [(child, statement) for child in _children(node)]


def _children(node: ast.AST) -> list[ast.AST]:
    """Return the parts of a node in which a fault could change a result."""
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.JoinedStr | ast.Assert):
        return []
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(n.id == "__all__" or n.id.startswith(_BLOCKS) for n in ast.walk(node) if isinstance(n, ast.Name)):
            return []
        return [node.value, *(t for t in targets if isinstance(t, ast.Subscript))] if node.value else []
    if isinstance(node, ast.FunctionDef):
        return [*node.body, *node.args.defaults, *filter(None, node.args.kw_defaults)]
    if isinstance(node, ast.ClassDef):
        return list(node.body)
    if isinstance(node, ast.keyword) and node.arg in _ROUTES:
        return []
    return list(ast.iter_child_nodes(node))


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node, ast.Compare):
        for k, kind in enumerate(map(type, node.ops)):
            for other in _COMPARISONS[kind]:
                new = deepcopy(node)
                new.ops[k] = other()
                yield "comparison", new
    elif isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.MatMult):
            yield "operands swapped", ast.BinOp(node.right, ast.MatMult(), node.left)
        elif type(node.op) in _ARITHMETIC:
            yield "arithmetic", ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "boolean", ast.BoolOp(other, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign lost", node.operand
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield "condition negated", node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "constant", ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield "constant", ast.Constant(node.value + 1)
            yield "constant", ast.Constant(node.value - 1)
        elif isinstance(node.value, float):
            yield "constant", ast.Constant(node.value + 1)
            yield "constant", ast.Constant(2 * node.value or -1.0)
    elif isinstance(node, ast.Call):
        if _order_matters(node):
            new = deepcopy(node)
            new.args[:2] = new.args[1::-1]
            yield "arguments swapped", new
    elif isinstance(node, ast.Attribute | ast.Name):
        name = node.attr if isinstance(node, ast.Attribute) else node.id
        if name in _TWINS:
            new = deepcopy(node)
            setattr(new, "attr" if isinstance(node, ast.Attribute) else "id", _TWINS[name])
            yield "twin", new
    elif isinstance(node, ast.Subscript):
        yield from _shifted(node)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield "return", ast.Return(ast.Constant(None))


def _order_matters(call: ast.Call) -> bool:
    """Tell whether swapping the first two arguments of a call is a fault, and not one that any type check sees."""
    first = call.args[:2]
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    text = any(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in first)
    starred = any(isinstance(a, ast.Starred) for a in first)
    return (
        len(first) == 2 and not text and not starred and name not in _SYMMETRIC and len(set(map(ast.dump, first))) == 2
    )


def _shifted(node: ast.Subscript) -> Iterator[tuple[str, ast.AST]]:
    """Move an end of a slice by one; constant indices and ends are constants already."""
    if isinstance(node.slice, ast.Slice):
        for end in ("lower", "upper"):
            value = getattr(node.slice, end)
            if value is not None and not isinstance(value, ast.Constant):
                new = deepcopy(node)
                setattr(new.slice, end, ast.BinOp(value, ast.Add(), ast.Constant(1)))
                yield "index", new


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return f"`{flat}`" if len(flat) <= 100 else f"`{flat[:60]} ... {flat[-35:]}`"
