"""The page of `spp-scl serve`: what people see, and what they cannot do to it."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spp_scl.errors import UserError
from spp_scl.page.answers import describe_regions, draw_heat_map, write_error, write_prediction
from spp_scl.page.uploads import read_upload, score_upload
from spp_scl.prediction.explain import Explanation
from spp_scl.prediction.posts import Post
from spp_scl.prediction.predictor import Prediction
from tests.browser import open_browser, requests, severe
from tests.test_prediction import make_bundle
from tests.test_prediction_files import FACTS

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed")

SERVE = [sys.executable, "-c", "from spp_scl.cli import main; raise SystemExit(main())", "serve"]
# Not by the proxy of the machine, or of an earlier test.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
MARKUP = "<img src=x onerror=\"document.title='markup ran'\"> <script>document.title='markup ran'</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("page")
    models = folder / "models"
    models.mkdir()
    make_bundle(models, data)
    config = json.loads((models / "config.json").read_text())
    (models / "config.json").write_text(json.dumps({**config, **FACTS}))
    Image.effect_noise((320, 240), 80).convert("RGB").save(folder / "photo.jpg")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """A server of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "tmp").mkdir()
    command = [*SERVE, "--model", "models", "--port", str(port)]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said: list[str] = []
        threading.Thread(target=lambda: said.extend(process.stderr), daemon=True).start()
        line = process.stdout.readline()
        assert "Ctrl-C" in line, (line, said)
        process.said = said
        yield process, line.split()[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, 130)
    # Nothing that was uploaded is kept, nor what was made of it.
    assert [path for path in (folder / "tmp").rglob("*.*") if "torchinductor" not in str(path)] == []


@pytest.fixture(scope="module")
def client(server):
    return gradio_client.Client(server[1], verbose=False, analytics_enabled=False)


def ask(client, text="a good day", picture=None, explain=False):
    image = None if picture is None else gradio_client.handle_file(str(picture))
    return client.predict(text, image, explain, api_name="/predict")


def png_of(width, height, rows=None):
    """A PNG that says it has that size, of a few kilobytes: zeros; `rows`: that it really has."""

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 + width)) for _ in range(rows or height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_texts_are_text_whatever_they_hold():
    post = Post(MARKUP, Image.new("RGB", (70, 70), "white"))
    words = [(word, 0.1) for word in MARKUP.split()]
    explanation = Explanation(words, np.zeros((7, 7)))
    page = write_prediction(post, Prediction("<b>x", {"<b>x": 1.0}), [MARKUP], explanation)
    for html in (page, write_error(MARKUP)):
        assert "&lt;img" in html
        assert "<script" not in html
    assert re.findall("<img[^>]*", page.replace("\n", "")) == re.findall(
        '<img src="data:image/jpeg[^>]*', page
    )


def test_the_heat_map_has_its_colors_where_the_gains_are():
    regions = np.zeros((7, 7))
    regions[0, 0], regions[6, 6] = 1.0, -1.0
    drawn = np.asarray(draw_heat_map(Image.new("RGB", (700, 700), "gray"), regions)).astype(int)
    assert drawn.shape == (480, 480, 3)
    first, middle, last = drawn[5, 5], drawn[240, 240], drawn[-5, -5]
    assert first[2] > first[1] + 10  # purple
    assert last[0] > last[2] + 50  # orange
    assert np.ptp(middle) < 10
    assert "row 1, column 1 speaks most for the label (+1.000), and row 7, column 7" in describe_regions(
        regions
    )


def make_bad_pictures(folder):
    """Paths of files that are no pictures to read, each with what is said of it."""
    jpeg = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(jpeg, "JPEG")
    files = {
        "bomb.png": (png_of(9_000, 9_000), "more than 25 megapixels"),
        "claim.png": (png_of(30_000, 30_000, rows=1), "more than 25 megapixels"),
        "truncated.jpg": (jpeg.getvalue()[:3000], "cannot be read"),
        "drawing.svg": (
            b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
            "no picture",
        ),
        "program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
        "text.jpg": (b"not a picture", "no picture"),
        "empty.png": (b"", "no picture"),
        "narrow.png": (png_of(8_000, 2), "narrower"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content)
    return {folder / name: said for name, (_, said) in files.items()}


def test_a_picture_that_cannot_be_read_is_refused_with_its_reason(tmp_path):
    for path, said in make_bad_pictures(tmp_path).items():
        with pytest.raises(UserError, match=said) as refused:
            read_upload("a text", str(path))
        assert str(tmp_path) not in str(refused.value)
    with pytest.raises(UserError, match="no longer here"):
        read_upload("a text", str(tmp_path / "gone.jpg"))
    with pytest.raises(UserError, match=r"longer than 10,000"):
        read_upload("a" * 10_001, None)
    with pytest.raises(UserError, match="Type a text"):
        read_upload(" \n", None)


def test_an_animation_is_read_with_a_notice(tmp_path):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    post, notice = read_upload("", str(tmp_path / "a.gif"))
    assert "first frame" in notice
    assert post.picture.getpixel((0, 0))[0] > 200


def test_a_file_of_posts_names_what_is_wrong_with_it(tmp_path):
    table = tmp_path / "posts.csv"
    for content, said in (
        ("text\n" + "a day\n" * 1_001, "More than 1,000 posts"),
        ("words\na day\n", "posts.csv: no column named text"),
        ("text\n", "no posts"),
    ):
        table.write_text(content)
        (own := tmp_path / f"own{len(said)}").mkdir()
        with pytest.raises(UserError, match=said) as refused:
            score_upload(None, [str(table)], own)
        assert str(tmp_path) not in str(refused.value)
    for files in ([], [str(table)] * 2, ["a.parquet"]):
        with pytest.raises(UserError, match="one file of posts"):
            score_upload(None, files, tmp_path)


def test_a_prediction_is_the_predictor_s(client, folder):
    from spp_scl import Predictor

    expected = Predictor.load(folder / "models")("a good day", image=folder / "photo.jpg")
    html = ask(client, picture=folder / "photo.jpg")
    assert f"<h2>{expected.label}</h2>" in html
    for name, value in expected.probabilities.items():
        assert re.search(rf"{name}</th>.*?>{100 * value:.1f} %", html, re.DOTALL)
    explained = ask(client, picture=folder / "photo.jpg", explain=True)
    assert explained.count('class="word"') == 3
    assert "data:image/jpeg;base64," in explained
    assert "Type a text" in ask(client, text="")


def test_a_file_is_scored_and_a_bad_row_has_its_reason(client, folder):
    posts = folder / "posts.csv"
    posts.write_text(
        "id,text,image\n=1+1,a good day,photo.jpg\n2,,photo.jpg\n3,a sad day,/etc/passwd\n"
        "4,a sad day,../../secret.jpg\n5,a day,missing.jpg\n"
    )
    files = [gradio_client.handle_file(str(path)) for path in (posts, folder / "photo.jpg")]
    html, path = client.predict(files, api_name="/score")
    lines = Path(path).read_text().splitlines()
    assert lines[0].startswith("row,id,prediction,p_")
    assert [bool(line.split(",")[2]) for line in lines[1:]] == [True, True, False, False, False]
    assert "outside" in lines[3]
    assert "outside" in lines[4]
    assert "no such picture" in lines[5]
    assert "5 posts, 3 without a prediction" in html
    assert "/spp-scl-" not in html


def test_bad_pictures_stop_nothing(client, server, tmp_path):
    for path, said in make_bad_pictures(tmp_path).items():
        assert re.search(f"{said}.*", ask(client, picture=path)), path
    assert "<h2>" in ask(client)
    assert "Traceback" not in "".join(server[0].said)


def test_twenty_users_at_once_in_bounded_memory(client, server, folder):
    psutil = pytest.importorskip("psutil")
    process = psutil.Process(server[0].pid)
    Image.effect_noise((4_000, 3_000), 80).convert("RGB").save(folder / "large.jpg", quality=60)
    first = ask(client, picture=folder / "large.jpg")
    before, most, done = process.memory_info().rss, [0], threading.Event()

    def watch():
        while not done.wait(0.02):
            most[0] = max(most[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(20) as pool:
        jobs = [pool.submit(ask, client, "a good day", folder / "large.jpg") for _ in range(20)]
        answers = [job.result(120) for job in jobs]
    done.set()
    watcher.join()
    assert set(answers) == {first}
    # Twenty pictures of 36 MB, each read twice over, would be 1.4 GB.
    assert most[0] - before < 500 * 2**20


def post_json(address, path, body, headers=None):
    request = urllib.request.Request(
        f"{address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with OPENER.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def get(address, path, headers=None):
    try:
        with OPENER.open(urllib.request.Request(address + path, headers=headers or {}), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def call(address, image):
    """What the server answers to a request that no page of its own has made."""
    status, body = post_json(address, "/gradio_api/call/predict", {"data": ["a good day", image, False]})
    if status != 200:
        return body
    return get(address, f"/gradio_api/call/predict/{json.loads(body)['event_id']}")[1].decode()


def test_no_file_of_the_server_s_machine_can_be_had(server, folder):
    address = server[1]
    (folder / "secret.jpg").write_bytes((folder / "photo.jpg").read_bytes())
    for path in (folder / "secret.jpg", folder / "models/config.json", Path("/etc/passwd")):
        for name in (str(path), f"/tmp/../{path}", f"{folder}/tmp/../{path.name}"):
            assert get(address, f"/gradio_api/file={name}")[0] in (403, 404), name
        answer = call(address, {"path": str(path), "meta": {"_type": "gradio.FileData"}})
        assert "error" in answer
        assert "<h2>" not in answer


def test_the_server_fetches_nothing_for_anybody(server):
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(3)

        def listen():
            with contextlib.suppress(TimeoutError):
                asked.append(other.accept())

        listener = threading.Thread(target=listen)
        listener.start()
        url = f"http://127.0.0.1:{other.getsockname()[1]}/secret.jpg"
        for image in (
            {"path": url, "meta": {"_type": "gradio.FileData"}},
            {"path": "a.jpg", "url": url, "meta": {"_type": "gradio.FileData"}},
        ):
            answer = call(server[1], image)
            assert "<h2>" not in answer
        listener.join()
    assert asked == []


def test_another_s_name_for_this_address_is_refused(server):
    assert get(server[1], "/", {"Host": "evil.example"})[0] == 400
    status, page = get(server[1], "/")
    assert status == 200
    assert b"SPP-SCL on sample" in page


def test_a_file_larger_than_the_limit_is_refused(client, folder):
    (folder / "huge.csv").write_bytes(b"text\n" + b"a day\n" * 2_000_000)
    with pytest.raises(Exception, match=r"(?i)exceed|large|size|413"):
        client.predict([gradio_client.handle_file(str(folder / "huge.csv"))], api_name="/score")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_works_in_a_browser(server, folder, width, monkeypatch):
    with open_browser(width, monkeypatch) as driver:
        driver.implicitly_wait(20)
        driver.get(server[1])
        driver.find_element("css selector", "textarea").send_keys(f"a good day {MARKUP}")
        driver.find_element("css selector", "input[type=file]").send_keys(str(folder / "photo.jpg"))
        driver.find_element("css selector", "[data-testid=image] img, .image-frame img")
        button = driver.find_element("xpath", "//button[normalize-space()='Predict']")
        button.click()
        driver.find_element("css selector", "#said figure img[src^='data:image/jpeg']")
        words = driver.find_elements("css selector", "#said .word")
        assert " ".join(word.text for word in words) == f"a good day {MARKUP}"
        driver.find_element("css selector", "#said .bars")
        for name in ("textbox", "button", "checkbox", "tab"):
            assert all(names_of(driver, name)), (name, names_of(driver, name))
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= driver.execute_script("return window.innerWidth")
        driver.find_element("css selector", "textarea").clear()
        driver.find_element("css selector", "[aria-label='Clear'], [aria-label='Remove Image']").click()
        # With the keyboard alone: Shift and Enter sends the text.
        keys = pytest.importorskip("selenium.webdriver").Keys
        driver.find_element("css selector", "textarea").send_keys(" ", keys.SHIFT + keys.ENTER)
        assert "Type a text" in driver.find_element("css selector", "#said [role=alert]").text
        # An example fills both; its text is in the list too.
        driver.find_element("css selector", "tr.tr-body, .gallery button").click()
        driver.find_element("css selector", "[data-testid=image] img, .image-frame img")
        assert driver.find_element("css selector", "textarea").get_attribute("value").strip()
        posts = folder / "typed.csv"
        posts.write_text(
            f'text,image\na good day,photo.jpg\n"{MARKUP.replace(chr(34), chr(34) * 2)}",none.jpg\n'
        )
        driver.find_element("xpath", "//button[@role='tab'][normalize-space()='A file of posts']").click()
        files = driver.find_elements("css selector", "input[type=file]")
        files[-1].send_keys(f"{posts}\n{folder / 'photo.jpg'}")
        driver.find_element("xpath", "//*[contains(text(), 'typed')]")
        driver.find_element("xpath", "//button[normalize-space()='Score']").click()
        cells = driver.find_elements("css selector", "#scores td")
        assert "none.jpg: no such picture" in [cell.text for cell in cells]
        assert driver.title == "SPP-SCL on sample"
        assert severe(driver) == []
        elsewhere = [url for url in requests(driver) if not url.startswith((server[1], "data:", "blob:"))]
        assert elsewhere == []


def names_of(driver, role):
    """The names that a screen reader says of each element of a role."""
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        node.get("name", {}).get("value", "")
        for node in nodes
        if node.get("role", {}).get("value") == role and not node.get("ignored")
    ]


def test_the_command_says_what_is_wrong(tmp_path, capsys, monkeypatch):
    from spp_scl.cli import main

    assert main(["serve", "--model", str(tmp_path)]) == 1
    assert "config.json: no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", "--port", "0"])
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "spp_scl.page.server", raising=False)
    monkeypatch.delitem(sys.modules, "spp_scl.page.app", raising=False)
    assert main(["serve"]) == 1
    assert "pip install 'spp-scl[page]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_error(server, folder):
    port = server[1].rpartition(":")[2]
    command = [*SERVE, "--model", "models", "--port", port]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    begun = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, time.monotonic() - begun
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr
