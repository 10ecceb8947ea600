// Follows /events and puts each new figure where the page says it belongs: data-live is the figure's path in the status.

const UNKNOWN = "–";
const counts = new Intl.NumberFormat("en-US");
const tenths = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

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

function figure(value, form) {
  if (form === "health") return value === null ? UNKNOWN : value ? "healthy" : "unhealthy";
  if (value === null || value === undefined) return UNKNOWN;
  if (form === "rate") return tenths.format(value);
  if (form === "ms") return `${(value < 10 ? hundredths : whole).format(value)} ms`;
  if (form === "seconds") return duration(value);
  return typeof value === "number" ? counts.format(value) : String(value);
}

const lookUp = (status, path) => path.split(".").reduce((value, key) => value?.[key], status);

// What the page was built from besides figures. When it changes, the page has to be built anew.
const outline = (status) =>
  JSON.stringify([
    status.version,
    status.pid,
    status.config,
    status.listeners.map((one) => [one.name, one.bind, one.routes.map((route) => [route.name, route.match, route.upstream])]),
    status.upstreams.map((one) => [one.name, one.endpoints.map((end) => [end.address, end.priority, end.weight])]),
  ]);

let known = null;
let ticking = null;
let clock = 0;

function show(status) {
  const now = outline(status);
  if (known !== null && known !== now) return location.reload();
  known = now;
  clock = status.uptime_seconds;
  for (const element of document.querySelectorAll("[data-live]")) {
    const text = figure(lookUp(status, element.dataset.live), element.dataset.form);
    if (element.textContent !== text) element.textContent = text;
    if (element.dataset.state !== undefined) element.dataset.state = text;
  }
}

// The stream is silent while nothing but the time changes.
function tick() {
  clock += 1;
  document.querySelector('[data-live="uptime_seconds"]').textContent = duration(clock);
}

const events = new EventSource("/events");
const lost = document.getElementById("connection");
events.addEventListener("status", (event) => {
  show(JSON.parse(event.data));
  clearInterval(ticking);
  ticking = setInterval(tick, 1000);
});
events.addEventListener("open", () => (lost.hidden = true));
events.addEventListener("error", () => {
  lost.hidden = false;
  clearInterval(ticking);
});
