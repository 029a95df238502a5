// Draws a sound's loudness over time.

const LARGEST_DECODED_BYTES = 40e6; // a browser decodes whole files; an hour of mp3 would fill gigabytes
const COLUMNS = 1200;

/** The largest sample of each of COLUMNS slices in [0, 1], or null where the browser cannot decode the sound. */
export async function soundPeaks(sound) {
  if (sound.size > LARGEST_DECODED_BYTES) return null;
  const context = new OfflineAudioContext(1, 1, 16000);
  try {
    const decoded = await context.decodeAudioData(await sound.arrayBuffer());
    return peaks(decoded.getChannelData(0));
  } catch {
    return null;
  }
}

function peaks(samples) {
  const columns = Math.max(1, Math.min(COLUMNS, samples.length));
  const found = new Float32Array(columns);
  for (let column = 0; column < columns; column++) {
    const end = Math.floor(((column + 1) * samples.length) / columns);
    let peak = 0;
    for (let i = Math.floor((column * samples.length) / columns); i < end; i++) peak = Math.max(peak, Math.abs(samples[i]));
    found[column] = peak;
  }
  return found;
}

/** Fills the canvas with mirrored peaks in the canvas's own text colour; `heights` null draws a line of text instead. */
export function drawWaveform(canvas, heights) {
  const scale = window.devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = width * scale;
  canvas.height = height * scale;
  const draw = canvas.getContext("2d");
  draw.scale(scale, scale);
  draw.fillStyle = getComputedStyle(canvas).color;
  if (!heights) {
    draw.font = "14px system-ui, sans-serif";
    draw.fillText("This browser cannot draw this sound.", 12, height / 2 + 5);
    return;
  }
  const loudest = Math.max(...heights, 1e-3);
  const step = width / heights.length;
  heights.forEach((peak, column) => {
    const bar = Math.max(1, (peak / loudest) * (height - 4));
    draw.fillRect(column * step, (height - bar) / 2, Math.max(step - 0.3, 0.5), bar);
  });
}
