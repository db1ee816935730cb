"use strict";

// Shows what the control plane's API says, a few times a minute and whenever an object changes.

const RULES = ["VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "Sidecar", "PeerAuthentication",
  "RequestAuthentication", "AuthorizationPolicy", "Telemetry"];
const TYPES = {
  clusters: "envoy.config.cluster.v3.Cluster",
  listeners: "envoy.config.listener.v3.Listener",
  routes: "envoy.config.route.v3.RouteConfiguration",
  endpoints: "envoy.config.endpoint.v3.ClusterLoadAssignment",
};

const element = (id) => document.getElementById(id);

async function ask(path) {
  const response = await fetch(path, { cache: "no-store" });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.json();
}

// Texts are only ever set as text, never as markup: names in a mesh are other people's input.
function cell(text, kind) {
  const td = document.createElement("td");
  if (kind === "code") {
    const code = document.createElement("code");
    code.textContent = text;
    td.append(code);
  } else {
    td.textContent = text;
    if (kind) td.className = kind;
  }
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

const origin = (object) => object.metadata.annotations?.["lateen.dev/origin"] ?? "";

function showProxies(proxies) {
  const count = (proxy, type) => proxy.types.find((it) => it.typeUrl.endsWith(type))?.resources ?? 0;
  fill("proxies", proxies.map((proxy) => {
    const state = cell(proxy.state, proxy.state);
    state.title = proxy.errors.map((error) => `${error.resource}: ${error.message}`).join("\n");
    return [
      cell(proxy.id), cell(proxy.type), cell(proxy.address), state, cell(proxy.revision),
      ...Object.values(TYPES).map((type) => cell(count(proxy, type))),
    ];
  }), "No proxy is connected.");
  element("proxy-count").textContent = proxies.length;
}

function showServices(services, pods) {
  fill("services", services.map((service) => {
    const { spec, metadata } = service;
    const selector = Object.entries(spec.selector ?? {});
    const chosen = pods.filter((pod) => selector.length > 0 && pod.metadata.namespace === metadata.namespace
      && selector.every(([key, value]) => pod.metadata.labels?.[key] === value));
    const ready = chosen.filter((pod) => pod.status?.conditions?.some((it) => it.type === "Ready" && it.status === "True"));
    const ports = (spec.ports ?? []).map((port) => `${port.port}${port.name ? ` ${port.name}` : ""}`).join(", ");
    const verdict = chosen.length === 0 ? "" : ready.length === chosen.length ? "synced" : "stale";
    return [
      cell(metadata.name), cell(metadata.namespace), cell(spec.clusterIP ?? ""), cell(ports),
      cell(chosen.length === 0 ? "none" : `${ready.length} of ${chosen.length}`, verdict), cell(origin(service), "code"),
    ];
  }), "There are no services.");
  element("service-count").textContent = services.length;
}

function showRules(rules) {
  fill("rules", rules.map((rule) => [
    cell(rule.kind), cell(rule.metadata.name), cell(rule.metadata.namespace ?? ""), cell(origin(rule), "code"),
  ]), "There are no rules: everything may talk to everything.");
  element("rule-count").textContent = rules.length;
}

function showProblems(diagnostics) {
  element("problems").hidden = diagnostics.length === 0;
  element("problem-list").replaceChildren(...diagnostics.map((it) => {
    const li = document.createElement("li");
    const word = document.createElement("strong");
    word.className = it.severity;
    word.textContent = it.severity;
    const place = document.createElement("code");
    const object = it.object ? ` ${it.object.kind} ${it.object.namespace ? `${it.object.namespace}/` : ""}${it.object.name}` : "";
    place.textContent = `${it.file}${it.line ? `:${it.line}` : ""}${object}${it.field ? ` ${it.field}` : ""} [${it.code}]`;
    li.append(word, ` ${it.message}`, place);
    return li;
  }));
}

async function refresh() {
  const list = (kind) => ask(`/api/v1/objects?kind=${kind}`).then((answer) => answer.items);
  const [status, found, services, pods, ...rules] = await Promise.all([
    ask("/api/v1/proxies"), ask("/api/v1/diagnostics"), list("Service"), list("Pod"), ...RULES.map(list),
  ]);
  showProxies(status.proxies);
  showServices(services, pods);
  showRules(rules.flat());
  showProblems(found.diagnostics);
  const behind = status.proxies.filter((proxy) => proxy.state !== "synced").length;
  const proxies = behind === 0 ? "every proxy is up to date" : `${behind} of ${status.proxies.length} proxies are not up to date`;
  element("summary").textContent = `Revision ${status.revision}; ${proxies}.`;
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
      element("summary").textContent = `The control plane does not answer (${error.message}); proxies go on with what they have.`;
    }
  }
  running = false;
}

async function follow() {
  for (;;) {
    try {
      const response = await fetch(`/api/v1/watch?kinds=Service,Pod,${RULES.join(",")}`, { cache: "no-store" });
      const reader = response.body.getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) show();
    } catch {
      await show();
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

show();
follow();
setInterval(show, 2000);
