"""Renders the OpenAPI document as one self-contained page: no scripts, nothing loaded from elsewhere."""

from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; font-size: 1.1rem; border-top: 1px solid #8886; padding-top: 1rem; }
code { font-family: ui-monospace, monospace; }
.method { display: inline-block; min-width: 3.5rem; font-weight: 700; color: #0a7d55; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8883; }
summary { cursor: pointer; }
pre { overflow-x: auto; padding: .75rem; background: #8882; border-radius: .4rem; }
"""


def render_docs(document: dict[str, Any]) -> str:
    """The page: every operation with its parameters, bodies and answers."""
    info = document["info"]
    operations = "".join(
        _operation(path, method, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    title = escape(f"{info['title']} {info['version']}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: HTTP interface</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(info.get('description', ''))}</p>"
        "<pre>curl -F file=@clip.wav 'http://localhost:8000/classify?top_k=3'</pre>"
        '<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"{operations}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    return (
        f'<h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
        f"<p>{escape(operation.get('description', ''))}</p>"
        f"{_parameters(operation.get('parameters', []))}{_body(operation)}{_answer(operation, document)}"
    )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{escape(_type(parameter['schema']))}</td>"
        f"<td>{escape(_default(parameter['schema']))}</td>"
        f"<td>{escape(parameter.get('description') or parameter['schema'].get('description', ''))}</td></tr>"
        for parameter in parameters
    )
    head = "<tr><th>parameter</th><th>type</th><th>default</th><th></th></tr>"
    return f"<table>{head}{rows}</table>" if rows else ""


def _body(operation: dict[str, Any]) -> str:
    body = operation.get("requestBody")
    if body is None:
        return ""
    types = ", ".join(f"<code>{escape(kind)}</code>" for kind in body["content"])
    return f"<p>Body: {escape(body.get('description', ''))} ({types})</p>"


def _answer(operation: dict[str, Any], document: dict[str, Any]) -> str:
    schema = operation["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
    lines = _lines(schema, document, indent=0)
    return f"<details><summary>Answer</summary><pre>{escape(chr(10).join(lines))}</pre></details>" if lines else ""


def _lines(schema: dict[str, Any], document: dict[str, Any], indent: int) -> list[str]:
    """One line per field of the answer, deeper fields indented."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if schema.get("type") == "array":
        return _lines(schema["items"], document, indent)
    lines = []
    for name, field in schema.get("properties", {}).items():
        described = f"  {field['description']}" if "description" in field else ""
        lines.append(f"{'  ' * indent}{name}: {_type(field)}{described}")
        lines += _lines(field, document, indent + 1)
    return lines


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "object"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _default(schema: dict[str, Any]) -> str:
    return "" if schema.get("default") is None else str(schema["default"])
