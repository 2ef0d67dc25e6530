"""The OpenAPI document as one page: no script, nothing from elsewhere, so that it works on a board without internet."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: light-dark(#0b62c4, #7ab8ff); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { margin: 0; } h2 { margin: 2.5rem 0 .5rem; } h4 { margin: 1.2rem 0 .3rem; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .4rem; padding: .7rem; overflow-x: auto; }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; padding: 0 .9rem; }
details details { margin: .3rem 0; }
summary { cursor: pointer; padding: .55rem 0; }
summary .about { opacity: .75; margin-left: .6rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-top: 1px solid var(--line); }
.method { display: inline-block; min-width: 4rem; font-weight: 700; color: var(--accent); }
a { color: var(--accent); }
"""

STYLE_SOURCE: Final = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""What the Content-Security-Policy has to allow for the page's style."""

_METHODS = ("get", "put", "patch", "post", "delete")


def docs_page(document: Mapping[str, Any]) -> str:
    """The page. Everything in it comes from `document`."""
    info = document["info"]
    body = [
        f"<h1>{escape(info['title'])}</h1>",
        f"<p>{escape(info['summary'])} Version {escape(info['version'])}.</p>",
        _prose(info["description"]),
        '<p>The same for programs: <a href="/schema">OpenAPI 3.1</a>.</p>',
        *_security(document["components"]["securitySchemes"]),
    ]
    for tag in document["tags"]:
        body.append(f"<h2>{escape(tag['name'])}</h2>")
        body += [
            _operation(path, method, item[method])
            for path, item in document["paths"].items()
            for method in _METHODS
            if method in item and tag["name"] in item[method]["tags"]
        ]
    body.append("<h2>Schemas</h2>")
    body += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: API</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _security(schemes: Mapping[str, Any]) -> Iterable[str]:
    for scheme in schemes.values():
        yield f"<p>Authentication: <code>{escape(scheme['name'])}</code> header. {escape(scheme['description'])}</p>"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<details id="{escape(operation["operationId"])}"><summary><span class="method">{method.upper()}</span>',
        f'<code>{escape(path)}</code><span class="about">{escape(operation["summary"])}</span></summary>',
        _prose(operation["description"]),
    ]
    if parameters := operation.get("parameters"):
        parts.append("<h4>Parameters</h4><table><tr><th>Name<th>In<th>Meaning<th>Example</tr>")
        parts += [
            f"<tr><td><code>{escape(each['name'])}</code><td>{escape(each['in'])}<td>{_inline(each['description'])}"
            f"<td><code>{escape(_compact(each['example']))}</code></tr>"
            for each in parameters
        ]
        parts.append("</table>")
    if body := operation.get("requestBody"):
        parts.append("<h4>Body</h4>")
        parts += _contents(body["content"])
    parts.append("<h4>Answers</h4>")
    parts += [_answer(status, answer) for status, answer in operation["responses"].items()]
    return "\n".join([*parts, "</details>"])


def _answer(status: str, answer: Mapping[str, Any]) -> str:
    headers = ", ".join(f"<code>{escape(name)}</code>" for name in answer["headers"])
    first = answer["description"].split("\n")[0]
    return "\n".join(
        [
            f'<details><summary><strong>{status}</strong><span class="about">{_inline(first)}</span></summary>',
            _prose(answer["description"]),
            f"<p>Header fields: {headers}</p>",
            *_contents(answer.get("content", {})),
            "</details>",
        ]
    )


def _contents(contents: Mapping[str, Any]) -> Iterable[str]:
    for media_type, content in contents.items():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        link = f', <a href="#schema-{escape(name)}">{escape(name)}</a>' if name else ""
        yield f"<p><code>{escape(media_type)}</code>{link}</p>"
        examples = content.get("examples") or {"": {"value": content.get("example")}}
        for example in examples.values():
            yield f"<pre>{escape(_pretty(example['value']))}</pre>"


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    return (
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code>'
        f'<span class="about">{_inline(schema.get("description", ""))}</span></summary>'
        f"<pre>{escape(_pretty(schema))}</pre></details>"
    )


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n"))


def _inline(text: str) -> str:
    """The two marks of CommonMark that our descriptions use."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", marked)


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
