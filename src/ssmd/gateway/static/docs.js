"use strict";
// Shows the two documents as tables. Text goes in as text only.
const make = (name, text, ...children) => {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};
const table = (caption, headings, rows) => {
  const found = make("table", "", make("caption", caption));
  found.append(make("thead", "", make("tr", "", ...headings.map((heading) => make("th", heading)))));
  found.append(make("tbody", "", ...rows.map((row) => make("tr", "", ...row.map((cell) => make("td", cell))))));
  return found;
};
const load = async (path) => (await fetch(path)).json();

load("/openapi.json").then((api) => {
  document.getElementById("about").textContent = api.info.description;
  const rows = Object.entries(api.paths).map(([path, { get }]) => [
    path,
    get.summary,
    get.parameters.map((one) => `${one.name}: ${one.description}`).join("; "),
    get.responses["200"].content["application/json"].schema.$ref.split("/").pop(),
  ]);
  document.getElementById("operations").replaceChildren(table("GET requests", ["path", "answers", "parameters", "type"], rows));
});

load("/asyncapi.json").then((api) => {
  document.getElementById("wire").textContent = api.channels.stream.description;
  const schemas = api.components.schemas;
  const rows = Object.entries(api.components.messages).map(([type, message]) => [
    message.name,
    api.operations.command.messages.some((one) => one.$ref.endsWith(`/${type}`)) ? "to the gateway" : "from the gateway",
    message.summary,
    Object.keys(schemas[type].properties).join(", "),
  ]);
  document.getElementById("messages").replaceChildren(table("Messages", ["name", "way", "what", "fields"], rows));
});
