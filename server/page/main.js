// Wires the page: a sound comes in, is posted, and its answer is shown.

import { classify, labelThresholds, rememberKey, servedModels, ServerError } from "./api.js";
import { Recorder } from "./recorder.js";
import { clock, isHeard, renderAxis, renderLabels, renderRows } from "./timeline.js";
import { drawWaveform, soundPeaks } from "./waveform.js";

const TOP_LABELS = 10;
const $ = (id) => document.getElementById(id);

let shown = null; // { sound, name, answer, peaks } of the result on the page
let running = null; // AbortController of the sound on its way
let last = null; // [sound, name] to try again after a key was given
let recorder = null;
const thresholds = new Map(); // of each model's labels, once it has tagged
let stopAtSeconds = Infinity; // where playback of a selected event ends

function parameters(extra = {}) {
  const chosen = $("model").value;
  return { top_k: TOP_LABELS, ...(chosen && { model: chosen }), ...extra };
}

async function tagSound(sound, name) {
  running?.abort();
  const mine = (running = new AbortController());
  last = [sound, name];
  $("error").hidden = true;
  showBusy(`Sending ${name} …`, 0);
  const onProgress = (share) => showBusy(share === 1 ? `Listening to ${name} …` : `Sending ${name} …`, share === 1 ? null : share);
  try {
    const [text, peaks] = await Promise.all([
      classify(sound, parameters(), { onProgress, signal: mine.signal }),
      soundPeaks(sound),
    ]);
    const answer = JSON.parse(text);
    if (!thresholds.has(answer.model)) {
      thresholds.set(answer.model, await labelThresholds(answer.model).catch(() => new Map()));
    }
    if (running === mine) showResult({ sound, name, answer, peaks });
  } catch (error) {
    if (error.name !== "AbortError") showError(error, name);
  } finally {
    if (running === mine) {
      running = null;
      $("busy").hidden = true;
    }
  }
}

function showBusy(text, share) {
  $("busy").hidden = false;
  $("busy-text").textContent = text;
  if (share === null) $("progress").removeAttribute("value");
  else $("progress").value = share;
}

function showError(error, name) {
  const wait = error.retryAfterSeconds ? ` Try again in ${error.retryAfterSeconds} s.` : "";
  const sentence = error.message.replace(/[.\s]*$/, ".");
  const about = name ? `${name}: ` : ""; // the result below may be another sound's
  $("error-text").textContent = about + sentence.charAt(0).toUpperCase() + sentence.slice(1) + wait;
  $("error-id").textContent = error.requestId ? `Request ${error.requestId}` : "";
  $("key-form").hidden = !(error instanceof ServerError && error.status === 401);
  $("error").hidden = false;
}

function showResult(result) {
  shown = result;
  const { answer, sound, name, peaks } = result;
  $("result").hidden = false;
  $("result-title").textContent = `${name} · ${clock(answer.duration_seconds, answer.duration_seconds < 60)}`;
  URL.revokeObjectURL($("player").src);
  $("player").hidden = false;
  $("player").src = URL.createObjectURL(sound);
  renderLabels($("labels"), answer.labels, thresholds.get(answer.model));
  renderRows($("rows"), answer, playEvent);
  renderAxis($("axis"), answer.duration_seconds);
  drawWaveform($("waveform"), peaks);
  const { runtime, precision, device, scan } = answer.provenance;
  const runs = [runtime, precision, `on ${device}`, ...(scan ? [`${scan} scan`] : [])].join(", ");
  $("provenance").textContent = `${answer.model}: ${runs}; ${answer.timing.total_ms.toFixed(0)} ms on the server.`;
  $("status").textContent = inWords(answer);
  movePlayhead();
}

function inWords({ model, labels }) {
  const heard = labels.filter(({ mid, score }) => isHeard(score, thresholds.get(model).get(mid)));
  const named = (heard.length ? heard : labels).slice(0, 3).map(({ label, score }) => `${label} ${score.toFixed(2)}`);
  return `${heard.length ? "Heard" : "Nothing reaches its threshold; best are"}: ${named.join(", ")}.`;
}

function playEvent(start, end) {
  const player = $("player");
  stopAtSeconds = end;
  player.currentTime = start;
  player.play().catch(() => {}); // a sound that the browser cannot play still has its timeline
}

function movePlayhead() {
  const player = $("player");
  if (!shown) return;
  const share = Math.min(1, player.currentTime / shown.answer.duration_seconds);
  $("timeline").style.setProperty("--played", `${100 * share}%`);
  if (player.currentTime >= stopAtSeconds) {
    player.pause();
    stopAtSeconds = Infinity;
  }
  if (!player.paused) requestAnimationFrame(movePlayhead);
}

async function download(format) {
  try {
    const answer = shown.answer;
    const text = format === "json"
      ? JSON.stringify(answer, null, 2)
      : await classify(shown.sound, { top_k: TOP_LABELS, model: answer.model, format });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text]));
    link.download = `${shown.name}.${{ audacity: "txt", webvtt: "vtt", raven: "txt" }[format] ?? format}`;
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    showError(error);
  }
}

async function toggleRecording() {
  try {
    if (recorder) {
      const finished = recorder;
      recorder = null;
      showRecording(false);
      const recording = await finished.stop();
      await tagSound(recording, recording.name);
    } else {
      $("error").hidden = true;
      recorder = await Recorder.start((level, seconds) => {
        $("level").value = level;
        if (recorder) $("record-text").textContent = `Stop (${clock(seconds)})`;
      });
      showRecording(true);
    }
  } catch (error) {
    recorder = null;
    showRecording(false);
    showError(new Error(error.name === "NotAllowedError" ? "The browser was not allowed to use the microphone." : error.message));
  }
}

function showRecording(on) {
  $("record").setAttribute("aria-pressed", String(on));
  $("record-text").textContent = on ? "Stop" : "Record";
  $("level").hidden = !on;
}

async function trySample(name) {
  const response = await fetch(`page/samples/${name}.ogg`);
  if (response.ok) await tagSound(await response.blob(), `${name}.ogg`);
  else showError(new Error("The sample is missing on the server."));
}

function acceptDrops() {
  let depth = 0; // dragenter and dragleave also come from every element inside the page
  const mark = (change) => document.body.classList.toggle("dropping", (depth = Math.max(0, depth + change)) > 0);
  addEventListener("dragenter", (event) => { event.preventDefault(); mark(1); });
  addEventListener("dragleave", () => mark(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-depth);
    const [file] = event.dataTransfer.files;
    if (file) tagSound(file, file.name);
  });
}

async function offerModels() {
  const models = await servedModels().catch(() => []);
  $("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  $("model-choice").hidden = models.length < 2;
}

$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (file) tagSound(file, file.name);
});
$("model").addEventListener("change", () => shown && tagSound(shown.sound, shown.name));
$("record").addEventListener("click", toggleRecording);
$("cancel").addEventListener("click", () => running?.abort());
$("samples").addEventListener("click", ({ target }) => target.dataset.sample && trySample(target.dataset.sample));
$("result").addEventListener("click", ({ target }) => target.dataset.format && download(target.dataset.format));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  rememberKey($("key").value);
  offerModels();
  tagSound(...last);
});
$("waveform").addEventListener("click", (event) => {
  stopAtSeconds = Infinity;
  $("player").currentTime = (event.offsetX / $("waveform").clientWidth) * shown.answer.duration_seconds;
});
$("player").addEventListener("play", movePlayhead);
$("player").addEventListener("seeked", movePlayhead);
$("player").addEventListener("error", () => ($("player").hidden = true));
const redraw = () => shown && drawWaveform($("waveform"), shown.peaks);
new ResizeObserver(redraw).observe($("waveform"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
acceptDrops();
offerModels();
