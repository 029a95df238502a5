// The clip's labels, and each label's row of scores and events over time.

const MOST_SLICES = 1500; // a gradient of more stops than pixels only costs time
const MARK_PIXELS = 70;
const AXIS_STEPS_SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

/** A label is heard from its own threshold on; one without a threshold always. */
export function isHeard(score, threshold = 0) {
  return score >= threshold;
}

/** `thresholds` holds each label's by its mid, and is marked on the label's bar. */
export function renderLabels(list, labels, thresholds) {
  list.replaceChildren(...labels.map(({ mid, label, score }) => {
    const bar = element("div", { className: "bar" }, element("span"));
    bar.firstChild.style.width = `${100 * score}%`;
    const threshold = thresholds.get(mid);
    if (threshold !== undefined) {
      bar.append(element("i", { title: `heard from ${threshold.toFixed(2)} on` }));
      bar.lastChild.style.left = `${100 * threshold}%`;
    }
    const name = element("span", { className: "row-label", textContent: label, title: `${label} (${mid})` });
    const className = isHeard(score, threshold) ? "heard" : "unheard";
    return element("li", { className }, name, bar, element("span", { className: "score", textContent: score.toFixed(2) }));
  }));
}

/** One row per label of the clip or of an event; `play(start, end)` is called for an event that is selected. */
export function renderRows(container, answer, play) {
  const rows = rowLabels(answer).map(({ mid, label }) => {
    const track = element("div", { className: "track" });
    track.style.backgroundImage = scoreGradient(answer, mid);
    const events = answer.events.filter((event) => event.mid === mid);
    track.append(...events.map((event) => eventButton(event, answer.duration_seconds, play)));
    return element("div", { className: "row" }, element("span", { className: "row-label", textContent: label, title: label }), track);
  });
  container.replaceChildren(...rows);
}

export function renderAxis(axis, duration) {
  const mostMarks = Math.max(2, axis.clientWidth / MARK_PIXELS);
  const step = AXIS_STEPS_SECONDS.find((seconds) => duration / seconds <= mostMarks) ?? 86400;
  const marks = [];
  for (let seconds = 0; seconds <= duration * 0.97; seconds += step) {
    const mark = element("span", { textContent: clock(seconds, step < 1) });
    mark.style.left = `${(100 * seconds) / duration}%`;
    marks.push(mark);
  }
  axis.replaceChildren(...marks);
}

/** 75 is "1:15", 3675 is "1:01:15"; with `tenths` 5.5 is "0:05.5". */
export function clock(seconds, tenths = false) {
  const rounded = tenths ? Math.round(seconds * 10) / 10 : Math.round(seconds);
  const part = (value) => String(Math.floor(value)).padStart(2, "0");
  const [hours, minutes] = [Math.floor(rounded / 3600), (rounded / 60) % 60];
  const start = hours ? `${hours}:${part(minutes)}` : `${Math.floor(minutes)}`;
  return `${start}:${part(rounded % 60)}${tenths ? `.${Math.round(rounded * 10) % 10}` : ""}`;
}

function rowLabels(answer) {
  const rows = new Map(answer.labels.map((label) => [label.mid, label]));
  for (const event of answer.events) if (!rows.has(event.mid)) rows.set(event.mid, event);
  return [...rows.values()];
}

// Each window shades the time until the next one starts, so that overlapping windows do not hide each other.
function scoreGradient({ windows, duration_seconds: duration }, mid) {
  const slices = new Map();
  windows.forEach((window, index) => {
    const score = window.labels.find((label) => label.mid === mid)?.score ?? 0;
    const slice = Math.floor((index * Math.min(windows.length, MOST_SLICES)) / windows.length);
    const end = windows[index + 1]?.start_seconds ?? window.end_seconds;
    const known = slices.get(slice);
    slices.set(slice, { start: known?.start ?? window.start_seconds, end, score: Math.max(known?.score ?? 0, score) });
  });
  const stops = [...slices.values()].map(({ start, end, score }) => {
    const colour = `color-mix(in srgb, var(--accent) ${(85 * score).toFixed(1)}%, transparent)`;
    return `${colour} ${((100 * start) / duration).toFixed(3)}% ${((100 * end) / duration).toFixed(3)}%`;
  });
  return `linear-gradient(90deg, ${stops.join(", ")})`;
}

function eventButton(event, duration, play) {
  const { label, start_seconds: start, end_seconds: end, score } = event;
  const what = `${label}, ${clock(start, true)} to ${clock(end, true)}, score ${score.toFixed(2)}`;
  const button = element("button", { className: "event", type: "button", title: what, textContent: score.toFixed(2) });
  button.setAttribute("aria-label", what);
  button.style.left = `${(100 * start) / duration}%`;
  button.style.width = `${(100 * (end - start)) / duration}%`;
  button.addEventListener("click", () => play(start, end));
  return button;
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
