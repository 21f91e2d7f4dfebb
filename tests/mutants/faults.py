"""Faults to try: a module's text with one small thing changed, dropped or forced."""

import ast
from collections import Counter
from collections.abc import Iterator

SWAPS = """Add Sub, Sub Add, Mult Div, Div Mult, Pow Mult, FloorDiv Div, Mod Mult, BitAnd BitOr, BitOr BitAnd,
And Or, Or And, Lt LtE, Lt GtE, LtE Lt, LtE Gt, Gt GtE, Gt LtE, GtE Gt, GtE Lt, Eq NotEq, NotEq Eq, Is IsNot,
IsNot Is, In NotIn, NotIn In"""
SWAPS = [[getattr(ast, name) for name in swap.split()] for swap in SWAPS.split(",")]
WORDS = ast.Raise | ast.JoinedStr  # what an error says is no logic


def faults(node: ast.AST, parent: ast.AST, imported: set[str]) -> Iterator[tuple[ast.AST, str]]:
    """(a part of the node, what stands there instead)."""

    def changed(**fields):
        return node, f"({ast.unparse(type(node)(**(dict(ast.iter_fields(node)) | fields)))})"

    def others(operator):
        return (new() for old, new in SWAPS if type(operator) is old)

    match node:
        case ast.BinOp() | ast.BoolOp():
            yield from (changed(op=new) for new in others(node.op))
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield from (changed(ops=[*ops[:i], new, *ops[i + 1 :]]) for new in others(op))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):  # an axis, an end
            yield node, f"(-{value + 1})"
        case ast.UnaryOp():
            yield node, f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool()):
            yield node, str(not node.value)
        case ast.Constant(value=int() | float() as value) if not isinstance(parent, ast.UnaryOp):
            yield node, str(value + 1)
            if value and not isinstance(parent, ast.AnnAssign):
                yield node, str(value - value)
        case ast.If() | ast.While() | ast.IfExp():
            yield from ((node.test, str(value)) for value in (True, False))
        case ast.Call(func=func, args=args, keywords=keywords):
            yield from (changed(keywords=keywords[:i] + keywords[i + 1 :]) for i in range(len(keywords)))
            if len(args) > 1:
                yield changed(args=args[:-1])
            if isinstance(func, ast.Attribute) and not isinstance(parent, ast.Expr):  # x.detach() -> x
                if (receiver := ast.unparse(func.value)).split(".")[0] not in imported:
                    yield node, f"({receiver})"
        case ast.Expr(value=ast.Call() | ast.BoolOp()) | ast.AugAssign() | ast.Break() | ast.Continue():
            yield node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "pass"
        case ast.FunctionDef(decorator_list=[ast.Call(func=ast.Attribute()) as decorator]):  # torch.no_grad()
            yield decorator, "(lambda function: function)"


def first_line(node: ast.AST) -> str:
    """What a node says, or a compound statement's head."""
    return next(line for line in ast.unparse(node).splitlines() if not line.startswith("@"))


def mutants(module: str, source: bytes) -> dict[str, str]:
    """The text of a module with one fault each, by the fault's name: place | statement | old -> new.

    The name does not depend on how the lines are broken.
    """
    lines, tree = source.splitlines(keepends=True), ast.parse(source)
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))
    imported = {"self"} | {alias.asname or alias.name for node in imports for alias in node.names}
    found, seen = {}, Counter()

    def visit(node: ast.AST, place: str, statement: str) -> None:
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                hint = field in ("returns", "decorator_list") or isinstance(node, ast.arg)
                if hint or not isinstance(child, ast.AST) or isinstance(child, WORDS):
                    continue
                named = isinstance(child, ast.FunctionDef | ast.ClassDef)
                inner = f"{place}.{child.name}" if named else place
                said = first_line(child) if isinstance(child, ast.stmt) else statement
                for part, new in faults(child, node, imported):
                    begin = sum(map(len, lines[: part.lineno - 1])) + part.col_offset
                    end = sum(map(len, lines[: part.end_lineno - 1])) + part.end_col_offset
                    name = f"{inner} | {said} | {first_line(part)} -> {new}"
                    seen[name] += 1
                    name += f" (no. {seen[name]})" * (seen[name] > 1)
                    found[name] = source[:begin].decode() + new + source[end:].decode()
                visit(child, inner, said)

    visit(tree, module, "")
    return found
