"""The page of `spp-scl serve`: what people see, and what they cannot do to it."""

import asyncio
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
from spp_scl.methods.shared.method import Reads
from spp_scl.page.answers import (
    describe_regions,
    draw_heat_map,
    write_about,
    write_error,
    write_prediction,
)
from spp_scl.page.guard import NoTransport, remove_old
from spp_scl.page.uploads import read_upload, score_upload
from spp_scl.prediction.explain import Explanation
from spp_scl.prediction.posts import Post
from spp_scl.prediction.predictor import Prediction, Predictor
from tests.browser import open_browser, requests, severe
from tests.test_prediction import make_bundle
from tests.test_prediction_files import FACTS

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed")

SERVE = [sys.executable, "-c", "from spp_scl.cli import main; raise SystemExit(main())", "serve"]
BOTH = Reads(text="layers", image="map")
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
    assert left_in(folder / "tmp") == []


def left_in(folder):
    """Files that were uploaded, or were made of what was uploaded."""
    return [path for path in folder.rglob("*") if path.is_file() and "torchinductor" not in str(path)]


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
            read_upload("a text", str(path), BOTH)
        assert str(tmp_path) not in str(refused.value)
    with pytest.raises(UserError, match="no longer here"):
        read_upload("a text", str(tmp_path / "gone.jpg"), BOTH)
    with pytest.raises(UserError, match=r"longer than 100,000"):
        read_upload("a" * 100_001, None, BOTH)
    for nothing in ("", " \n", "\u200b\u200d"):
        with pytest.raises(UserError, match="Give a text or a picture"):
            read_upload(nothing, None, BOTH)


def test_a_post_with_nothing_that_the_model_reads_is_refused(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"Give a text\."):
        read_upload("", str(tmp_path / "a.png"), Reads(text="pieces"))
    with pytest.raises(UserError, match=r"Give a picture\."):
        read_upload("a day", None, Reads(image="map"))


def test_the_encoder_that_a_model_does_not_read_is_not_shown(tmp_path, data):
    make_bundle(tmp_path, data, "cnn")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **FACTS}))
    about = write_about(Predictor.load(tmp_path))
    assert "text encoder" in about
    assert "image encoder" not in about
    assert FACTS["findings"]["coupling"] in about


def test_an_animation_is_read_with_a_notice(tmp_path):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    post, notice = read_upload("", str(tmp_path / "a.gif"), BOTH)
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
    expected = Predictor.load(folder / "models")("a good day", image=folder / "photo.jpg")
    html = ask(client, picture=folder / "photo.jpg")
    assert f"<h2>{expected.label}</h2>" in html
    for name, value in expected.probabilities.items():
        assert re.search(rf"{name}</th>.*?>{100 * value:.1f} %", html, re.DOTALL)
    explained = ask(client, picture=folder / "photo.jpg", explain=True)
    assert explained.count('class="word"') == 3
    assert "data:image/jpeg;base64," in explained
    assert "Give a text or a picture" in ask(client, text="")


def test_a_file_is_scored_and_a_bad_row_has_its_reason(client, folder):
    posts = folder / "posts.csv"
    posts.write_text(
        "id,text,image\nNA,a good day,photo.jpg\n2,,photo.jpg\n3,a sad day,/etc/passwd\n"
        "4,a sad day,../../secret.jpg\n5,a day,missing.jpg\n6,a day,Thumbs.db\n"
    )
    (folder / "Thumbs.db").write_bytes(b"no picture")
    files = [str(path) for path in (posts, folder / "photo.jpg", folder / "Thumbs.db")]
    html, path = client.predict(list(map(gradio_client.handle_file, files)), api_name="/score")
    lines = Path(path).read_text().splitlines()
    assert lines[0].startswith("row,id,prediction,p_")
    assert lines[1].startswith("1,NA,")
    assert [bool(line.split(",")[2]) for line in lines[1:]] == [True, True, False, False, False, False]
    reasons = ["outside", "outside", "missing.jpg: no such", "Thumbs.db: no picture"]
    for line, why in zip(lines[3:], reasons, strict=True):
        assert why in line
    assert "Posts: 6, without a prediction: 4" in html
    assert "/spp-scl-" not in html + "".join(lines)
    twice = list(map(gradio_client.handle_file, [*files, files[1]]))
    assert "Two files are named photo.jpg" in client.predict(twice, api_name="/score")[0]


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


def test_long_texts_are_not_kept_in_memory(server):
    psutil = pytest.importorskip("psutil")
    process = psutil.Process(server[0].pid)
    before = process.memory_info().rss
    body = json.dumps({"data": ["a" * 60_000_000, None, False], "fn_index": 0, "session_hash": "s"}).encode()
    request = urllib.request.Request(
        f"{server[1]}/gradio_api/queue/join", body, {"Content-Type": "application/json"}
    )
    for _ in range(5):
        # It is refused by its length, and the rest is not read.
        with pytest.raises(urllib.error.URLError):
            OPENER.open(request, timeout=60)
    assert process.memory_info().rss - before < 200 * 2**20


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


def join(address, image, text="a good day"):
    """What the server answers to a request that no page of its own has made."""
    config = json.loads(get(address, "/config")[1])
    number = next(one["id"] for one in config["dependencies"] if one["api_name"] == "predict")
    data = {"data": [text, image, False], "fn_index": number, "session_hash": f"s{time.monotonic_ns()}"}
    status, body = post_json(address, "/gradio_api/queue/join", data)
    if status != 200:
        return status, body
    path = f"/gradio_api/queue/data?session_hash={data['session_hash']}"
    return status, get(address, path)[1].decode()


def test_no_file_of_the_server_s_machine_can_be_had(server, folder):
    address = server[1]
    (folder / "secret.jpg").write_bytes((folder / "photo.jpg").read_bytes())
    for path in (folder / "secret.jpg", folder / "models/config.json", Path("/etc/passwd")):
        for name in (str(path), f"/tmp/../{path}", f"{folder}/tmp/../{path.name}"):
            assert get(address, f"/gradio_api/file={name}")[0] in (403, 404), name
        status, answer = join(address, {"path": str(path), "meta": {"_type": "gradio.FileData"}})
        assert status == 200
        assert '"success":false' in answer
        assert "<h2>" not in answer


def test_the_server_fetches_nothing_for_anybody(server, folder, monkeypatch):
    address = server[1]
    assert get(address, "/gradio_api/file=http://93.184.216.34/x.jpg")[0] == 403
    for url in ("http://93.184.216.34/secret.jpg", "https://huggingface.co/x.jpg"):
        for image in ({"path": url}, {"path": "a.jpg", "url": url}):
            begun = time.monotonic()
            answer = join(address, {**image, "meta": {"_type": "gradio.FileData"}})[1]
            assert "<h2>" not in answer
            assert time.monotonic() - begun < 5  # a connection that is tried waits longer than that
    # And Gradio's way of fetching is the one that refuses.
    from gradio import processing_utils

    monkeypatch.setattr(processing_utils, "async_transport", NoTransport())
    for url in ("http://93.184.216.34/secret.jpg", "https://huggingface.co/x.jpg"):
        with pytest.raises(Exception, match="fetches nothing"):
            asyncio.run(processing_utils.async_ssrf_protected_download(url, str(folder)))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/call/predict"),
        ("GET", "/gradio_api/deep_link?session_hash=x"),
        ("GET", "/gradio_api/proxy=http://93.184.216.34/"),
        ("GET", "/monitoring"),
        ("DELETE", "/"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(server, method, path):
    request = urllib.request.Request(server[1] + path, b"" if method == "POST" else None, method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        OPENER.open(request, timeout=60)
    assert refused.value.code == 404


def test_another_page_that_is_open_can_send_nothing(server):
    evil = {"Origin": "http://evil.example"}
    assert post_json(server[1], "/gradio_api/queue/join", {}, evil)[0] == 403
    assert post_json(server[1], "/gradio_api/upload", {}, evil)[0] == 403


def test_what_is_old_is_removed_whatever_it_is(tmp_path):
    old, new = tmp_path / "a/b", tmp_path / "c"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (old / "link").symlink_to("/etc/passwd")
    (tmp_path / "empty").mkdir()
    for path in (old / "file", old, old.parent, tmp_path / "empty"):
        os.utime(path, (1, 1))
    os.utime(old / "link", (1, 1), follow_symlinks=False)
    remove_old(tmp_path, 600)
    assert not (old / "file").exists()
    assert not (old / "link").exists()
    assert not (tmp_path / "empty").exists()
    assert (new / "file").exists()
    assert Path("/etc/passwd").exists()


def test_another_s_name_for_this_address_is_refused(server):
    assert get(server[1], "/", {"Host": "evil.example"})[0] == 400
    status, page = get(server[1], "/")
    assert status == 200
    assert b"SPP-SCL on sample" in page


def upload(address, content):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n' + content
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        body + b"\r\n--x--\r\n",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with OPENER.open(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_a_file_larger_than_the_limit_is_refused(server):
    (path,) = upload(server[1], b"text\n" + b"a day\n" * 10)
    assert path.endswith("a.csv")
    with pytest.raises(urllib.error.HTTPError, match="413"):
        upload(server[1], b"text\n" + b"a day\n" * 2_000_000)


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
        assert "Give a text or a picture" in driver.find_element("css selector", "#said [role=alert]").text
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
    assert main(["serve"]) == 1
    assert "pip install 'spp-scl[page]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "said"), [("127.0.0.1", "already in use"), ("256.1.1.1", "256.1.1.1, port")]
)
def test_an_address_that_cannot_be_had_is_an_error_at_once(server, host, said, capsys):
    from spp_scl.cli import main

    port = server[1].rpartition(":")[2]
    assert main(["serve", "--host", host, "--port", port]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "--port" in error


@pytest.mark.parametrize(
    ("host", "local", "name"),
    [
        ("127.0.0.2", True, "127.0.0.2"),
        ("::1", True, "[::1]"),
        ("localhost", True, "localhost"),
        ("192.168.1.5", False, "192.168.1.5"),
        ("0.0.0.0", False, "*"),
    ],
)
def test_the_page_answers_to_its_own_names(host, local, name):
    from spp_scl.page.command import _describe_host

    found, names = _describe_host(host)
    assert found == local
    assert name in names
    assert ("*" in names) == (host == "0.0.0.0")


def test_a_closed_terminal_leaves_nothing(tmp_path):
    """A process in a folder of its own, which gets SIGHUP."""
    program = (
        "from spp_scl.page.command import temporary_folder\nimport tempfile, time\n"
        "with temporary_folder() as folder:\n"
        "    (folder / 'uploads/me.jpg').write_text('x')\n"
        "    tempfile.NamedTemporaryFile(delete=False).write(b'x')\n"
        "    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        assert left_in(tmp_path)
        process.send_signal(signal.SIGHUP)
        process.wait(30)
    assert list(tmp_path.iterdir()) == []
