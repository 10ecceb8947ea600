// Follows /events: each event holds the parts of the page that changed, as the server would write them now. The page
// is brought up to date in place, so that focus, scrolling and selection stay. Clocks run here.

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

// Make what is inside `old` be what is inside `fresh`, touching only what differs.
function morph(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((node, place) => {
    const present = old.childNodes[place];
    if (!present) old.append(node);
    else if (present.nodeName !== node.nodeName || present.id !== node.id) present.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (present.data !== node.data) present.data = node.data;
    } else {
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

function follow() {
  const events = new EventSource("/events");
  events.addEventListener("version", (event) => {
    if (event.data !== document.body.dataset.version) location.reload();
  });
  events.addEventListener("parts", (event) => show(JSON.parse(event.data)));
  events.addEventListener("open", () => (lost.hidden = true));
  events.addEventListener("error", () => {
    lost.hidden = false;
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 5000); // refused: too many follow already
  });
}

setInterval(tick, 500);
follow();
