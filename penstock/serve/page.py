"""The page at `/docs`: what is served, its fields, and a box to ask it. It loads nothing from anywhere else.

It is an empty shell that reads `/openapi.json` (with the token that the visitor types in, if one is asked
for), so it may be shown to anyone.
"""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Penstock</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {
  font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a2b3c; background: #fff;
}
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #d5dde5 }
textarea, pre {
  box-sizing: border-box; width: 100%; font: 14px/1.4 ui-monospace, monospace;
  background: #f4f7fa; border: 1px solid #b9c5d1; padding: .75rem; border-radius: 4px; overflow: auto;
}
button {
  font: inherit; padding: .4rem 1.2rem; border: 0; border-radius: 4px;
  background: #0b5394; color: #fff; cursor: pointer;
}
button:focus, textarea:focus, input:focus { outline: 3px solid #f1a33c }
input { font: inherit; padding: .3rem }
</style></head><body>
<h1 id="title">Penstock</h1><p id="about">Reading <a href="openapi.json">openapi.json</a> …</p>
<form id="key" hidden>
<label>Bearer token <input id="token" type="password" autocomplete="off"></label> <button>Use it</button>
</form>
<div id="all" hidden>
<h2>Fields of a record</h2>
<table>
<thead><tr><th>field</th><th>type</th><th></th></tr></thead><tbody id="fields"></tbody>
</table>
<h2>Ask</h2>
<p><label for="body">POST /predict</label></p>
<textarea id="body" rows="14" spellcheck="false"></textarea>
<p><button id="ask">Send</button> <span id="took" role="status"></span></p>
<pre id="answer" tabindex="0"></pre>
<h2>Routes</h2>
<table><tbody id="routes"></tbody></table>
<p>The whole description: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>
</div>
<script>
const at = id => document.getElementById(id);
const headers = () => at("token").value ? {Authorization: "Bearer " + at("token").value} : {};
function row(table, ...cells) {
  const tr = document.createElement("tr");
  for (const text of cells) {
    const td = document.createElement("td");
    td.textContent = text;
    tr.append(td);
  }
  at(table).append(tr);
}
async function read() {
  const response = await fetch("openapi.json", {headers: headers()});
  if (response.status === 401) {
    at("key").hidden = false;
    at("about").textContent = "This server asks for a bearer token.";
    return;
  }
  const api = await response.json(), record = api.components.schemas.Record;
  document.title = at("title").textContent = api.info.title;
  at("about").textContent = api.info.description;
  at("all").hidden = false;
  at("key").hidden = true;
  for (const [name, field] of Object.entries(record.properties)) {
    const types = [].concat(field.type || "any").join(" or ");
    row("fields", name, types, record.required.includes(name) ? "required" : "optional");
  }
  for (const [path, operations] of Object.entries(api.paths)) {
    for (const [verb, operation] of Object.entries(operations)) {
      row("routes", verb.toUpperCase() + " " + path, operation.summary);
    }
  }
  const example = api.paths["/predict"].post.requestBody.content["application/json"].example;
  at("body").value = JSON.stringify(example, null, 1);
}
at("key").onsubmit = event => { event.preventDefault(); read() };
at("ask").onclick = async () => {
  const start = performance.now();
  const response = await fetch("predict", {
    method: "POST", headers: {...headers(), "Content-Type": "application/json"}, body: at("body").value,
  });
  at("answer").textContent = JSON.stringify(await response.json(), null, 1);
  at("took").textContent = response.status + ", " + (performance.now() - start).toFixed(1) + " ms";
};
read();
</script></body></html>
"""
