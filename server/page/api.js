// Talks to the server that this page came from.

export class ServerError extends Error {
  constructor(message, { status = 0, requestId = "", retryAfterSeconds = null } = {}) {
    super(message);
    Object.assign(this, { status, requestId, retryAfterSeconds });
  }
}

const KEY = "hark-api-key";

export function rememberKey(key) {
  sessionStorage.setItem(KEY, key);
}

function keyHeaders() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** The served models, the default first; none where the server does not tell. */
export async function servedModels() {
  const response = await fetch("models", { headers: keyHeaders() });
  return response.ok ? (await response.json()).models : [];
}

/** Each label's threshold by its mid; none where the server does not tell. */
export async function labelThresholds(model) {
  const response = await fetch(`labels?${new URLSearchParams({ model })}`, { headers: keyHeaders() });
  return new Map(response.ok ? (await response.json()).labels.map(({ mid, threshold }) => [mid, threshold]) : []);
}

/** Posts a sound and gives the answer's text. XMLHttpRequest, because fetch does not tell an upload's progress. */
export function classify(sound, parameters, { onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `classify?${new URLSearchParams(parameters)}`);
    for (const [name, value] of Object.entries(keyHeaders())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => onProgress(event.lengthComputable ? event.loaded / event.total : null);
    request.upload.onload = () => onProgress(1);
    request.onload = () => (request.status === 200 ? resolve(request.responseText) : reject(refusal(request)));
    request.onerror = () => reject(new ServerError("The server cannot be reached. Is it still running?"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(sound);
  });
}

function refusal(request) {
  const requestId = request.getResponseHeader("X-Request-ID") ?? "";
  try {
    const body = JSON.parse(request.responseText);
    return new ServerError(body.error, {
      status: request.status, requestId: body.request_id ?? requestId, retryAfterSeconds: body.retry_after_seconds ?? null,
    });
  } catch {
    return new ServerError(`The server answered with status ${request.status}.`, { status: request.status, requestId });
  }
}
