// Follows /events: each event holds what on the page changed, as the server would write it now. The page
// is brought up to date in place, so that focus, scrolling and selection stay. Clocks run here; plots are drawn here
// (by uPlot, where it could be loaded); orders are sent from here, with a token that is kept in memory and nowhere else.
// When nothing comes any more, clocks stand still and the page says since when what it shows is old.

const clocks = "[data-up], [data-down]";
const arrived = new WeakMap(); // part or card -> when its clocks were right, in milliseconds of performance.now()
const lost = document.getElementById("connection");
const SILENCE = 6000; // milliseconds; a point of the plots comes every two seconds
let heard = performance.now();
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

// Seconds since the clock was right: since what is around it came, or the page.
function passed(clock) {
  let around = clock;
  while (around && !arrived.has(around)) around = around.parentElement;
  return (performance.now() - (arrived.get(around) ?? 0)) / 1000;
}

function tick() {
  if (performance.now() - heard > SILENCE) lose();
  if (!lost.hidden) return;
  for (const clock of document.querySelectorAll(clocks)) {
    const { up, down } = clock.dataset;
    const seconds = up === undefined ? Math.max(0, Number(down) - passed(clock)) : Number(up) + passed(clock);
    if (clock.localName === "meter") clock.value = seconds;
    else if (clock.textContent !== duration(seconds)) clock.textContent = duration(seconds);
  }
}

// The moment that a clock is about, for who points at it.
document.addEventListener("pointerover", ({ target }) => {
  const { up, down } = target.dataset ?? {};
  if (target.localName !== "time" || target.dateTime || (up ?? down) === undefined) return;
  const seconds = (up === undefined ? Number(down) : -Number(up)) - passed(target);
  target.title = `${new Date(Date.now() + 1000 * seconds).toISOString().slice(0, 19).replace("T", " ")} UTC`;
});

// Make what is inside `old` be what is inside `fresh`, touching only what differs. What the reader has opened stays open.
function morph(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, place) => {
    const present = old.childNodes[place];
    if (!present) old.append(node);
    else if (present.nodeName !== node.nodeName || present.id !== node.id) present.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (present.data !== node.data) present.data = node.data;
    } else become(present, node);
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

function become(present, node) {
  if (present.isEqualNode(node)) return;
  if (present.open) node.setAttribute("open", "");
  for (const { name } of [...present.attributes]) if (!node.hasAttribute(name)) present.removeAttribute(name);
  for (const { name, value } of node.attributes) {
    if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  }
  morph(present, node);
}

// A part comes as what is inside its element, a card as its element.
function show(news) {
  for (const [id, html] of Object.entries(news)) {
    const place = document.getElementById(id);
    const template = document.createElement("template");
    template.innerHTML = html;
    const card = template.content.firstElementChild;
    if (card?.id === id) become(place, card);
    else {
      morph(place, template.content);
      for (const inside of place.querySelectorAll("[id]")) arrived.delete(inside);
    }
    arrived.set(place, performance.now());
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

// A line over a wash of its colour; the legend has the value that is pointed at, else the newest.
function line(label, colour, unit) {
  const value = (plot, y, series) => {
    const shown = plot.cursor.idx == null ? plot.data[series].at(-1) : y;
    return shown == null ? "–" : `${shown < 10 ? shown.toFixed(1) : Math.round(shown)} ${unit}`;
  };
  return { label, stroke: ink(colour), fill: ink(`${colour}-wash`), width: 1.5, points: { show: true, size: 4, filter: alone }, value };
}

// A value between two unknown ones is no line: a dot.
function alone(plot, series) {
  const known = (place) => plot.data[series][place] != null;
  return [...plot.data[series].keys()].filter((place) => known(place) && !known(place - 1) && !known(place + 1));
}

function range(_, first, last) {
  return [Math.min(Math.max(first, last - SHOWN[1]), last - SHOWN[0]), last];
}

function plot(id, names, series) {
  const place = document.getElementById(id);
  const grid = { stroke: ink("--line"), width: 1 };
  const axis = { stroke: ink("--soft"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const size = () => ({ width: place.clientWidth, height: 140 });
  const drawn = new uPlot({
    ...size(),
    series: [{ label: "at" }, ...series],
    axes: [
      {
        ...axis, space: 50, size: 24, grid: { show: false }, incrs: [60, 120, 300],
        values: (_, moments) => moments.map((at) => new Date(1000 * at).toTimeString().slice(0, 5)),
      },
      { ...axis, size: 36, gap: 4, space: 28 },
    ],
    scales: { x: { range }, y: { range: (_, __, top) => [0, Math.max(top || 0, 1) * 1.1] } },
    cursor: { y: false, sync: { key: "plots" }, points: { size: 6 } },
    padding: [8, 4, 0, 0],
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
    plot("plot-traffic", ["at", "requests", "errors"], [line("all", "--focus", "/s"), line("errors", "--bad", "/s")]);
    plot("plot-latency", ["at", "p99", "p50"], [line("p99", "--warn", "ms"), line("p50", "--good", "ms")]);
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
  if (said.get("fleet")) body.fleet = true;
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

function lose() {
  if (!lost.hidden) return;
  const since = new Date(Date.now() - (performance.now() - heard));
  const told = document.getElementById("lost");
  told.dateTime = since.toISOString();
  told.textContent = since.toTimeString().slice(0, 8);
  document.body.classList.add("old");
  lost.hidden = false;
}

function follow() {
  const events = new EventSource("/events");
  const on = (name, act) => events.addEventListener(name, (event) => {
    heard = performance.now();
    lost.hidden = true;
    document.body.classList.remove("old");
    act(event.data);
  });
  on("version", (version) => {
    if (version !== document.body.dataset.version) location.reload();
    Object.values(columns).forEach((column) => column.splice(0)); // all points come anew
  });
  on("parts", (data) => show(JSON.parse(data)));
  on("points", (data) => draw(JSON.parse(data)));
  events.addEventListener("error", () => {
    lose();
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 5000); // refused: too many follow already
  });
}

// The first event is the whole page once more; who opened it sees it before that is gone through.
setInterval(tick, 500);
if (document.hidden) follow();
else requestAnimationFrame(() => setTimeout(follow));
