// Records the microphone into one file, in whatever container the browser makes.

export class Recorder {
  /** Asks for the microphone and starts; `onLevel` is told the loudness in [0, 1] and the seconds recorded. */
  static async start(onLevel) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("The browser gives the microphone only to pages on localhost or over HTTPS.");
    }
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false }, // made for speech; they eat sounds
    });
    return new Recorder(stream, onLevel);
  }

  constructor(stream, onLevel) {
    this.stream = stream;
    this.chunks = [];
    this.media = new MediaRecorder(stream);
    this.media.ondataavailable = ({ data }) => this.chunks.push(data);
    this.media.start();
    this.watchLevel(onLevel);
  }

  watchLevel(onLevel) {
    const started = performance.now();
    this.context = new AudioContext();
    const analyser = this.context.createAnalyser();
    this.context.createMediaStreamSource(this.stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    this.timer = setInterval(() => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      onLevel(Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-10) / 6)), (performance.now() - started) / 1000);
    }, 100);
  }

  /** Stops, gives the microphone back, and gives the recording. */
  async stop() {
    const stopped = new Promise((resolve) => (this.media.onstop = resolve));
    this.media.stop();
    await stopped;
    clearInterval(this.timer);
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
    const type = this.media.mimeType || "audio/webm";
    return new File(this.chunks, `recording.${type.includes("mp4") ? "m4a" : "webm"}`, { type });
  }
}
