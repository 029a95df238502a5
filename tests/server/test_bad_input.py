"""Bad input gets the contract's error, never a 5xx and never a hang, and the next good request succeeds."""

from collections.abc import Callable

import httpx
import pytest

from tests.server.harness import check_error, encode, running, sine, wav_header

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

GOOD = encode(sine(1))
BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "invalid_input"),
    "one byte": (b"R", 415, "audio_not_decodable"),
    "random bytes": (bytes(range(256)) * 40, 415, "audio_not_decodable"),
    "text": (b"this is not audio, whatever the header says", 415, "audio_not_decodable"),
    "html": (b"<!doctype html><html></html>", 415, "audio_not_decodable"),
    "header only": (wav_header(0), 422, "invalid_input"),
    "zero samples": (encode(sine(0)), 422, "invalid_input"),
    "zero hertz": (wav_header(1000, rate=0) + bytes(1000), 422, "invalid_input"),
    "four gigahertz": (wav_header(1000, rate=4_000_000_000) + bytes(1000), 422, "invalid_input"),
    "no channels": (wav_header(1000, channels=0) + bytes(1000), 422, "invalid_input"),
    "65,535 channels": (wav_header(1000, channels=65_535) + bytes(1000), 422, "invalid_input"),
    "declares more than there is": (wav_header(1000, declared_bytes=2**31) + bytes(1000), 422, "invalid_input"),
    "truncated wav": (GOOD[: len(GOOD) // 2], 422, "invalid_input"),
    "truncated header": (GOOD[:20], 422, "invalid_input"),
    "truncated flac": (encode(sine(3), container="FLAC")[:-2000], 422, "invalid_input"),
    "truncated ogg": (encode(sine(3), container="OGG")[:60], 422, "invalid_input"),
}


@pytest.mark.parametrize("multipart", [False, True], ids=["raw", "multipart"])
@pytest.mark.parametrize("name", BAD_BODIES)
async def test_bad_bodies(client: httpx.AsyncClient, name: str, multipart: bool) -> None:
    body, status, error_type = BAD_BODIES[name]
    form = {"files": {"file": ("clip.wav", body)}} if multipart else {"content": body}
    check_error(await client.post("/classify", **form), status, error_type)
    assert (await client.post("/classify", content=GOOD)).status_code == 200


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("top_k=0", "top_k"),
        ("top_k=-3", "top_k"),
        ("top_k=many", "top_k"),
        ("top_k=", "top_k"),
        ("top_k=1.5", "top_k"),
        ("threshold=1.01", "threshold"),
        ("threshold=-0.1", "threshold"),
        ("threshold=nan", "threshold"),
        ("window_seconds=0", "window_seconds"),
        ("window_seconds=-1", "window_seconds"),
        ("window_seconds=inf", "window_seconds"),
        ("window_seconds=11", "window_seconds"),
        ("hop_seconds=0", "hop_seconds"),
        ("hop_seconds=10.5", "hop_seconds"),
        ("window_seconds=2&hop_seconds=3", "hop_seconds"),
        ("hop_seconds=1e-300", "hop_seconds"),
        ("hop_seconds=0.05", "0.1"),
        ("window_seconds=0.05", "0.1"),
        ("channels=stereo", "channels"),
        ("priority=high", "priority"),
        ("window_seconds=1e-300", "window_seconds"),
        ("timeout_seconds=0", "timeout_seconds"),
        ("rollup=perhaps", "rollup"),
        ("format=xml", "format"),
        ("topk=3", "topk"),
        ("top_k=0&threshold=7", "threshold"),
    ],
)
async def test_bad_parameters_are_named(client: httpx.AsyncClient, query: str, named: str) -> None:
    sentence = check_error(await client.post(f"/classify?{query}", content=encode(sine(11))), 422, "invalid_input")
    assert named in sentence
    assert (await client.post("/classify", content=GOOD)).status_code == 200


async def test_bad_form_fields_are_named(client: httpx.AsyncClient) -> None:
    files = {"file": ("clip.wav", GOOD)}
    for data, named in (({"top_k": "0"}, "top_k"), ({"tresh": "1"}, "tresh")):
        assert named in check_error(await client.post("/classify", data=data, files=files), 422, "invalid_input")


async def test_unknown_models_are_told_which_there_are(client: httpx.AsyncClient) -> None:
    sentence = check_error(await client.post("/classify?model=nobody", content=GOOD), 404, "model_not_found")
    assert "fake, other" in sentence
    form = {"data": {"model": "nobody"}, "files": {"file": ("clip.wav", GOOD)}}
    check_error(await client.post("/classify", **form), 404, "model_not_found")
    check_error(await client.post("/models/nobody", content=GOOD), 404, "model_not_found")


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.post("/classify", files={"audio": ("clip.wav", GOOD)}),
        lambda client: client.post("/classify", files={"top_k": (None, "3")}),
        lambda client: client.post("/classify", files={"file": (None, "text, not a file")}),
        lambda client: client.post("/classify", files=[("file", ("a.wav", GOOD)), ("file", ("b.wav", GOOD))]),
        lambda client: client.post("/classify", content=GOOD, headers={"Content-Type": "multipart/form-data"}),
        lambda client: client.post(
            "/classify", content=b"--x\r\nnonsense", headers={"Content-Type": "multipart/form-data; boundary=x"}
        ),
        lambda client: client.post(
            "/classify",
            content=b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + GOOD[:500],
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        ),
        lambda client: client.post(
            "/classify", data={f"field{i}": "x" for i in range(100)}, files={"file": ("a", GOOD)}
        ),
    ],
    ids=["other field", "no file", "text field", "two files", "no boundary", "nonsense", "cut off", "many fields"],
)
async def test_bad_multipart(client: httpx.AsyncClient, send: Callable[[httpx.AsyncClient], httpx.Response]) -> None:
    check_error(await send(client), 422, "invalid_input")  # type: ignore[misc]
    assert (await client.post("/classify", content=GOOD)).status_code == 200


async def test_bodies_over_the_limit() -> None:
    async with running(max_upload_bytes=40_000, max_json_bytes=10_000) as (client, service):
        big = encode(sine(2))

        async def chunks():  # type: ignore[no-untyped-def]
            for start in range(0, len(big), 1000):
                yield big[start : start + 1000]

        for form in ({"content": big}, {"content": chunks()}):
            sentence = check_error(await client.post("/classify", **form), 413, "audio_too_large")
            assert "40000 bytes" in sentence
        for form_file in (big, big * 3):  # a form may have some bytes more than its file, the file may not
            response = await client.post("/classify", files={"file": ("a.wav", form_file)})
            assert "the limit is 40000 bytes" in check_error(response, 413, "audio_too_large")
        check_error(await client.post("/", json={"inputs": "A" * 20_000}), 413, "audio_too_large")
        assert (await client.post("/classify", content=GOOD)).status_code == 200
        count = service.metrics.registry.get_sample_value("hark_rejected_total", {"reason": "size"})
        assert count == 5


async def test_sound_over_the_limit_is_refused_with_both_numbers_not_cut() -> None:
    async with running(max_audio_seconds=2) as (client, _):
        for container in ("WAV", "FLAC", "OGG"):
            response = await client.post("/classify", content=encode(sine(3.5), container=container))
            sentence = check_error(response, 413, "audio_too_large")
            assert "2 seconds" in sentence
            assert "3.5" in sentence
        assert (await client.post("/classify", content=encode(sine(2)))).status_code == 200


async def test_an_upload_that_stalls_is_given_up() -> None:
    import asyncio

    async def stalling():  # type: ignore[no-untyped-def]
        yield GOOD[:1000]
        await asyncio.sleep(5)
        yield GOOD[1000:]

    async with running(upload_idle_seconds=0.1) as (client, _):
        check_error(await client.post("/classify", content=stalling()), 422, "invalid_input")
        assert (await client.post("/classify", content=GOOD)).status_code == 200


async def test_a_file_whose_name_is_only_given_encoded_is_a_file(client: httpx.AsyncClient) -> None:
    """Some clients send `filename*` alone where the name is not ASCII; the part was taken for a text field."""
    head = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename*=UTF-8''d%C3%B6g%20%22.wav\r\n\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    body = head + GOOD + b"\r\n--x--\r\n"
    response = await client.post("/classify?format=csv", content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert "dög _.wav" in response.text
