// Follows /events: each event holds the parts of the page that changed, as the server would write them now. The page
// is brought up to date in place, so that focus, scrolling and selection stay. Clocks run here; plots are drawn here
// (by uPlot, where it could be loaded); orders are sent from here, with a token that is kept in memory and nowhere else.

const clocks = "time[data-up], time[data-down]";
const arrived = new WeakMap(); // part -> when its clocks were right, in milliseconds of performance.now()
const lost = document.getElementById("connection");
const title = document.title.replace(/^\(\d+\) /, "");

function duration(seconds) {
  const sizes = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const found = sizes.findIndex(([, size]) => seconds >= size);
  const first = found < 0 ? 3 : found;
  const words = [];
  let rest = Math.floor(seconds);
  for (const [unit, size] of sizes.slice(first, first + 2)) {
    words.push(`${Math.floor(rest / size)}${unit}`);
    rest %= size;
  }
  return words.join(" ");
}

function tick() {
  for (const clock of document.querySelectorAll(clocks)) {
    const passed = (performance.now() - (arrived.get(clock.closest(".part")) ?? 0)) / 1000;
    const { up, down } = clock.dataset;
    const text = duration(up === undefined ? Math.max(0, Number(down) - passed) : Number(up) + passed);
    if (clock.textContent !== text) clock.textContent = text;
  }
}

// Make what is inside `old` be what is inside `fresh`, touching only what differs. What the reader has opened stays open.
function morph(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, place) => {
    const present = old.childNodes[place];
    if (!present) old.append(node);
    else if (present.nodeName !== node.nodeName || present.id !== node.id) present.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (present.data !== node.data) present.data = node.data;
    } else {
      if (present.open) node.setAttribute("open", "");
      for (const { name } of [...present.attributes]) if (!node.hasAttribute(name)) present.removeAttribute(name);
      for (const { name, value } of node.attributes) {
        if (present.getAttribute(name) !== value) present.setAttribute(name, value);
      }
      morph(present, node);
    }
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

function show(parts) {
  for (const [id, html] of Object.entries(parts)) {
    const part = document.getElementById(id);
    const template = document.createElement("template");
    template.innerHTML = html;
    morph(part, template.content);
    arrived.set(part, performance.now());
  }
  const troubles = document.querySelectorAll("#attention li").length;
  document.title = troubles ? `(${troubles}) ${title}` : title;
}

// Plots ---------------------------------------------------------------------------------------------------------------

const SHOWN = [120, 600]; // seconds: at least, at most
const KEPT = 300; // points
const ink = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name);
const columns = { at: [], requests: [], errors: [], p50: [], p99: [], share: [] };
const plots = [];

function line(label, colour, unit) {
  return { label, stroke: ink(colour), width: 2, points: { show: false }, value: (_, y) => (y == null ? "–" : `${y} ${unit}`) };
}

function range(_, first, last) {
  return [Math.min(Math.max(first, last - SHOWN[1]), last - SHOWN[0]), last];
}

function plot(id, names, series) {
  const place = document.getElementById(id);
  const axis = { stroke: ink("--soft"), grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line") } };
  const size = () => ({ width: place.clientWidth, height: 150 });
  const drawn = new uPlot({
    ...size(),
    series: [{ label: "at" }, ...series],
    axes: [{ ...axis, space: 70 }, { ...axis, size: 56 }],
    scales: { x: { range }, y: { range: (_, __, top) => [0, Math.max(top || 0, 0.1) * 1.1] } },
    cursor: { y: false },
  }, names.map((name) => columns[name]), place);
  new ResizeObserver(() => drawn.setSize(size())).observe(place);
  plots.push([drawn, names]);
}

function draw(points) {
  for (const [, at, requests, errors, p50, p99] of points) {
    const share = requests ? Math.round((1000 * errors) / requests) / 10 : 0;
    Object.entries({ at, requests, errors, p50, p99, share }).forEach(([name, value]) => columns[name].push(value));
  }
  for (const column of Object.values(columns)) column.splice(0, column.length - KEPT);
  if (!globalThis.uPlot || columns.at.length < 2) return;
  if (!plots.length) {
    document.getElementById("plots").hidden = false;
    plot("plot-traffic", ["at", "requests", "errors"], [line("requests", "--focus", "/s"), line("errors", "--bad", "/s")]);
    plot("plot-latency", ["at", "p50", "p99"], [line("p50", "--good", "ms"), line("p99", "--warn", "ms")]);
    plot("plot-errors", ["at", "share"], [line("errors", "--bad", "%")]);
  } else {
    for (const [drawn, names] of plots) drawn.setData(names.map((name) => columns[name]));
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach(([drawn]) => drawn.redraw()));

// Orders --------------------------------------------------------------------------------------------------------------

const dialog = document.getElementById("order");
let token = "";
let order;

function ask(button) {
  order = button.dataset;
  const asked = (order.ask ?? "").split(" ");
  for (const label of dialog.querySelectorAll("label")) {
    const wanted = label.dataset.field === "token" ? !token : asked.includes(label.dataset.field);
    label.hidden = !wanted;
    label.control.disabled = !wanted;
  }
  document.getElementById("order-says").textContent = order.says;
  document.getElementById("order-failed").textContent = "";
  dialog.showModal();
}

async function send(form) {
  const said = new FormData(form);
  const failed = document.getElementById("order-failed");
  const given = said.get("token") ?? token;
  const body = {};
  for (const name of ["why", "by"]) if (said.get(name)) body[name] = said.get(name);
  if (said.get("for")) body.for_seconds = Number(said.get("for"));
  try {
    const answer = await fetch(order.path, {
      method: "POST",
      headers: { authorization: `Bearer ${given}` },
      body: order.ask ? JSON.stringify(body) : undefined,
    });
    const text = await answer.text();
    if (!answer.ok) {
      if (answer.status === 401) token = "";
      throw new Error(text.trim());
    }
    token = given;
    form.elements.token.value = "";
    dialog.close();
    const done = document.getElementById("done");
    done.textContent = JSON.parse(text).message;
    setTimeout(() => (done.textContent = ""), 10000);
  } catch (error) {
    failed.textContent = error.message;
    const label = form.elements.token.closest("label");
    label.hidden = Boolean(token);
    form.elements.token.disabled = Boolean(token);
  }
}

if (dialog) {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest?.("button.act");
    if (button) ask(button);
    if (target.value === "cancel") dialog.close();
  });
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    send(event.target);
  });
}

// Following -----------------------------------------------------------------------------------------------------------

function follow() {
  const events = new EventSource("/events");
  events.addEventListener("version", (event) => {
    if (event.data !== document.body.dataset.version) location.reload();
    Object.values(columns).forEach((column) => column.splice(0)); // all points come anew
  });
  events.addEventListener("parts", (event) => show(JSON.parse(event.data)));
  events.addEventListener("points", (event) => draw(JSON.parse(event.data)));
  events.addEventListener("open", () => (lost.hidden = true));
  events.addEventListener("error", () => {
    lost.hidden = false;
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 5000); // refused: too many follow already
  });
}

setInterval(tick, 500);
follow();
