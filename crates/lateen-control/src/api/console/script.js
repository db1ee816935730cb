"use strict";

// Shows what the control plane's API says: when the page is opened, whenever an object changes, and every two seconds.

const RULES = ["VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "Sidecar", "PeerAuthentication",
  "RequestAuthentication", "AuthorizationPolicy", "Telemetry"];
const MOST_CHANGES = 12;

const element = (id) => document.getElementById(id);

async function ask(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

// Texts are only ever set as text, never as markup: names in a mesh are other people's input.
function make(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

const cell = (text, kind) => make("td", text, kind);

// A name whose end nobody types is shown with that end in a softer colour.
function cellOf(strong, soft) {
  const td = make("td", strong);
  td.append(make("span", soft, "soft"));
  return td;
}

function fill(id, rows, nothing) {
  const body = element(id);
  const made = rows.map((cells) => {
    const tr = document.createElement("tr");
    tr.append(...cells);
    return tr;
  });
  if (made.length === 0) {
    const tr = document.createElement("tr");
    const td = cell(nothing, "empty");
    td.colSpan = body.closest("table").querySelectorAll("th").length;
    tr.append(td);
    made.push(tr);
  }
  body.replaceChildren(...made);
}

function tile(id, text, verdict = "") {
  element(id).textContent = text;
  element(id).className = verdict;
}

// Where an object was written, without the folders that all files have in common.
let common = "";
const origin = (object) => object.metadata.annotations?.["lateen.dev/origin"] ?? "";

function findCommon(objects) {
  const folders = objects.map(origin).filter((path) => path.startsWith("/") && !path.includes("/run/mesh.yaml:"))
    .map((path) => path.slice(0, path.lastIndexOf("/") + 1));
  if (folders.length === 0) return "";
  return folders.reduce((shared, folder) => {
    while (!folder.startsWith(shared)) shared = shared.slice(0, shared.slice(0, -1).lastIndexOf("/") + 1);
    return shared;
  });
}

function place(path) {
  const code = make("code", common && path.startsWith(common) ? path.slice(common.length) : path);
  code.title = path;
  return code;
}

function placeCell(object) {
  const td = document.createElement("td");
  td.append(place(origin(object)));
  return td;
}

const inNamespace = (metadata) => metadata.namespace && metadata.namespace !== "default" ? `${metadata.namespace}/` : "";
const isReady = (pod) => pod.status?.conditions?.some((it) => it.type === "Ready" && it.status === "True");

// As the STATUS column of `lateen get pods`.
function podState(pod) {
  if (pod.metadata.deletionTimestamp) return "Terminating";
  const all = [...(pod.status?.containerStatuses ?? []), ...(pod.status?.initContainerStatuses ?? [])];
  const reason = all.map((it) => it.state?.waiting?.reason).find((it) => it && it !== "PodInitializing");
  return reason ?? pod.status?.reason ?? (isReady(pod) ? "Ready" : pod.status?.phase === "Running" ? "Not ready" : pod.status?.phase ?? "");
}

function proxyCell(pod, proxies) {
  const has = pod.spec?.containers?.some((it) => it.name === "istio-proxy");
  if (!has) return cell("outside the mesh", "soft");
  const proxy = proxies.find((it) => it.id === `${pod.metadata.name}.${pod.metadata.namespace}`);
  if (!proxy) return cell("not connected", "wait");
  const words = { synced: ["up to date", "good"], stale: [`behind, at revision ${proxy.revision}`, "wait"], rejected: ["refuses its configuration", "bad"] };
  const td = cell(...(words[proxy.state] ?? [proxy.state, "wait"]));
  td.title = proxy.errors.map((error) => `${error.resource}: ${error.message}`).join("\n");
  return td;
}

function showPods(pods, proxies) {
  fill("pods", pods.map((pod) => {
    const { name, namespace, labels } = pod.metadata;
    const hash = labels?.["pod-template-hash"];
    const cut = hash ? name.indexOf(`-${hash}`) : -1;
    const statuses = pod.status?.containerStatuses ?? [];
    const restarts = statuses.reduce((sum, it) => sum + (it.restartCount ?? 0), 0);
    return [
      cut > 0 ? cellOf(name.slice(0, cut), name.slice(cut)) : cell(name),
      cell(namespace), cell(podState(pod), isReady(pod) ? "good" : "wait"), cell(restarts), cell(pod.status?.podIP ?? ""),
      proxyCell(pod, proxies),
    ];
  }), "There are no pods.");
  const ready = pods.filter(isReady).length;
  tile("pods-ready", `${ready}/${pods.length}`, ready === pods.length ? "good" : "wait");
}

function showServices(services, pods) {
  fill("services", services.map((service) => {
    const { spec, metadata } = service;
    const selector = Object.entries(spec.selector ?? {});
    const chosen = pods.filter((pod) => selector.length > 0 && pod.metadata.namespace === metadata.namespace
      && selector.every(([key, value]) => pod.metadata.labels?.[key] === value));
    const ready = chosen.filter(isReady);
    const ports = (spec.ports ?? []).map((port) => `${port.port}${port.name ? ` ${port.name}` : ""}`).join(", ");
    const verdict = chosen.length === 0 ? "soft" : ready.length === chosen.length ? "good" : "wait";
    return [
      cell(metadata.name), cell(metadata.namespace), cell(ports),
      cell(chosen.length === 0 ? "none" : `${ready.length} of ${chosen.length}`, verdict), cell(spec.clusterIP ?? ""),
      placeCell(service),
    ];
  }), "There are no services.");
}

function showRules(rules) {
  fill("rules", rules.map((rule) => [
    cell(`${inNamespace(rule.metadata)}${rule.metadata.name}`), cell(rule.kind, "soft"), placeCell(rule),
  ]), "There are no rules: everything may talk to everything.");
  tile("rule-count", rules.length);
}

function showProblems(diagnostics) {
  element("problems").hidden = diagnostics.length === 0;
  const isBad = diagnostics.some((it) => it.severity === "error");
  tile("problem-count", diagnostics.length, diagnostics.length === 0 ? "good" : isBad ? "bad" : "wait");
  element("problem-list").replaceChildren(...diagnostics.map((it) => {
    const li = document.createElement("li");
    const object = it.object ? `  ${it.object.kind} ${inNamespace(it.object)}${it.object.name}` : "";
    const where = place(`${it.file}${it.line ? `:${it.line}` : ""}`);
    where.textContent += `${object}${it.field ? `  ${it.field}` : ""}  ${it.code}`;
    li.append(make("strong", it.severity, it.severity === "error" ? "bad" : "wait"), ` ${it.message}`, where);
    if (it.help) li.append(make("span", it.help, "help soft"));
    return li;
  }));
}

function verdict(proxies, diagnostics, pods) {
  const count = (number, one, more) => `${number} ${number === 1 ? one : more}`;
  const rejected = proxies.filter((proxy) => proxy.state === "rejected").length;
  const stale = proxies.filter((proxy) => proxy.state === "stale").length;
  const waiting = pods.filter((pod) => !isReady(pod)).length;
  if (rejected) return [`${count(rejected, "proxy refuses", "proxies refuse")} the configuration`, "bad"];
  if (diagnostics.length) {
    return [count(diagnostics.length, "problem", "problems"), diagnostics.some((it) => it.severity === "error") ? "bad" : "wait"];
  }
  if (waiting) return [`${count(waiting, "pod is", "pods are")} not ready`, "wait"];
  if (stale) return [`${count(stale, "proxy is", "proxies are")} not up to date yet`, "wait"];
  return ["All is well", "good"];
}

function sayVerdict(text, kind) {
  element("verdict").textContent = text;
  element("verdict").className = kind;
}

async function refresh() {
  const list = (kind) => ask(`/api/v1/objects?kind=${kind}`).then((answer) => answer.items);
  const [status, found, services, pods, ...rules] = await Promise.all([
    ask("/api/v1/proxies"), ask("/api/v1/diagnostics"), list("Service"), list("Pod"), ...RULES.map(list),
  ]);
  common = findCommon([...services, ...rules.flat()]);
  showPods(pods, status.proxies);
  showServices(services, pods);
  showRules(rules.flat());
  showProblems(found.diagnostics);
  const synced = status.proxies.filter((proxy) => proxy.state === "synced").length;
  tile("proxies-synced", `${synced}/${status.proxies.length}`, synced === status.proxies.length ? "good" : "wait");
  sayVerdict(...verdict(status.proxies, found.diagnostics, pods));
  element("revision").textContent = `revision ${status.revision}`;
}

let running = false;
let again = false;

async function show() {
  again = true;
  if (running) return;
  running = true;
  while (again) {
    again = false;
    try {
      await refresh();
    } catch (error) {
      sayVerdict("The control plane does not answer; proxies go on with what they have", "bad");
      element("verdict").title = error.message;
    }
  }
  running = false;
}

function tellChange({ type, object }) {
  if (object.kind === "Pod") return;
  const words = { ADDED: "added", MODIFIED: "changed", DELETED: "removed" };
  const li = document.createElement("li");
  const { metadata, kind } = object;
  li.append(make("time", new Date().toLocaleTimeString()), make("strong", `${inNamespace(metadata)}${metadata.name}`),
    ` ${kind} ${words[type] ?? type}`, place(origin(object)));
  const list = element("changes");
  list.querySelector(".empty")?.remove();
  list.prepend(li);
  while (list.children.length > MOST_CHANGES) list.lastChild.remove();
}

// One JSON value a line; what comes before SYNCED is what there was already.
async function readChanges(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let synced = false;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (pending + part.value).split("\n");
    pending = lines.pop();
    for (const line of lines.filter((it) => it.trim())) {
      const change = JSON.parse(line);
      if (change.type === "SYNCED") synced = true;
      else if (synced) tellChange(change);
    }
    show();
  }
}

async function follow() {
  for (;;) {
    try {
      const response = await fetch(`/api/v1/watch?kinds=Service,Pod,${RULES.join(",")}`, { cache: "no-store" });
      await readChanges(response.body);
    } catch {
      await show();
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

show();
follow();
setInterval(show, 2000);
