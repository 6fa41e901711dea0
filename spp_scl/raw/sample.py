"""A small synthetic dataset in MVSA-Single's raw layout, with the mess of real data in it.

The label follows MVSA's rule from the text's and the picture's own sentiment. A modality that is neutral
leaves the label to the other, so each alone predicts clearly less than both. Without noise the two together
determine the label.
"""

import random
from pathlib import Path

from PIL import Image, ImageDraw

from spp_scl.progress import progress

# Probability of each (text, image) sentiment, conflicts apart.
_PAIRS = {
    ("positive", "positive"): 0.12,
    ("positive", "neutral"): 0.14,
    ("neutral", "positive"): 0.14,
    ("neutral", "neutral"): 0.20,
    ("negative", "negative"): 0.12,
    ("negative", "neutral"): 0.14,
    ("neutral", "negative"): 0.14,
}
_CONFLICTS = (("positive", "negative"), ("negative", "positive"))

_FEELINGS = {
    "positive": ["love", "happy", "great", "beautiful", "amazing", "awesome"],
    "negative": ["sad", "terrible", "awful", "angry", "broken", "gloomy"],
    "neutral": ["usual", "regular", "ordinary", "scheduled", "weekly", "average"],
}
_TEMPLATES = (
    "{f} {f} day at the {place} with {who} , feeling {f}",
    "{who} said the {thing} was {f} {f} and the {place} {f}",
    "just saw the {thing} near the {place} {f} {f}",
    "{f} {thing} this morning , {f} {f} {place} in the evening",
    "so the {place} is {f} today and {who} looks {f} {f}",
    "the {thing} we got from {who} is {f} really {f}",
)
_PLACES = ["park", "station", "office", "beach", "school", "market", "stadium", "harbor", "library", "bridge"]
_THINGS = ["bus", "coffee", "concert", "game", "photo", "lunch", "weather", "show", "train", "garden"]
_PEOPLE = ("my brother", "the team", "our neighbor", "everyone", "the coach", "a friend")
_HASHTAGS = ["#monday", "#NowPlaying", "#city", "#photo", "#throwback", "#weekend", "#news", "#travel"]
_USERS = ["@sam_k", "@TheDailyPost", "@lena22", "@runner_x", "@bookclub", "@mr_oz"]
_EMOJI = ["☕", "🚌", "📷", "🌍", "🎧", "📚", "🏙️", "🚲"]


def write_sample(folder: Path, pairs: int, seed: int, noise: float = 0.0) -> None:
    """Write the dataset into `folder`.

    Args:
        folder: is made.
        pairs: that cleaning keeps; some that it drops are added.
        seed: draws everything.
        noise: probability of a text, and of a picture, to show a sentiment drawn at random, which is its own
            in one case of three; the labels stay.
    """
    rng = random.Random(seed)
    data = folder / "data"
    data.mkdir(parents=True)
    sentiments = rng.choices(list(_PAIRS), weights=list(_PAIRS.values()), k=pairs)
    dropped = max(3, pairs // 60)
    sentiments += [_CONFLICTS[i % 2] for i in range(dropped)]
    sentiments += [("neutral", "positive")] * 3  # an empty tweet, a truncated and a missing picture
    empty, truncated, missing = range(pairs + dropped + 1, pairs + dropped + 4)
    lines = ["ID\ttext,image"]
    for row_id, (text, image) in enumerate(progress(sentiments, desc="sample", unit="pairs"), start=1):
        lines.append(f"{row_id}\t{text},{image}")
        tweet_path, picture_path = data / f"{row_id}.txt", data / f"{row_id}.jpg"
        if row_id % 40 == 0 and row_id <= pairs:
            # People retweet: the same words and the same picture under another id.
            lines[-1] = f"{row_id}\t{','.join(sentiments[row_id - 2])}"
            original = (data / f"{row_id - 1}.txt").read_bytes().rstrip(b"\n")
            tweet_path.write_bytes(b"RT " + rng.choice(_USERS).encode() + b": " + original + b"\n")
            picture_path.write_bytes((data / f"{row_id - 1}.jpg").read_bytes())
            continue
        if noise:
            text, image = (rng.choice(list(_FEELINGS)) if rng.random() < noise else s for s in (text, image))
        tweet = "" if row_id == empty else make_tweet(rng, text)
        # Some tweets are GB18030, as in MVSA; here one in fifty.
        encoding = "gb18030" if row_id % 50 == 7 else "utf-8"
        if encoding == "gb18030" and tweet:
            tweet = f"so naïve at the café … {tweet}"
        tweet_path.write_bytes(f"{tweet}\n".encode(encoding))
        if row_id == missing:
            continue
        picture = make_picture(rng, image)
        # Sizes, color modes and qualities differ, as in what people upload.
        mode = {11: "CMYK", 12: "L"}.get(row_id % 60, "RGB")
        picture.convert(mode).save(picture_path, "JPEG", quality=rng.randint(70, 92))
        if row_id == truncated:
            whole = picture_path.read_bytes()
            picture_path.write_bytes(whole[: len(whole) // 2])
    (folder / "labelResultAll.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_tweet(rng: random.Random, sentiment: str) -> str:
    """A text that shows a sentiment."""
    template = rng.choice(_TEMPLATES)
    while "{f}" in template:
        template = template.replace("{f}", rng.choice(_FEELINGS[sentiment]), 1)
    words = template.format(place=rng.choice(_PLACES), thing=rng.choice(_THINGS), who=rng.choice(_PEOPLE))
    extras = [
        (0.4, lambda: rng.choice(_HASHTAGS)),
        (0.2, lambda: rng.choice(_EMOJI)),
        (0.4, lambda: f"http://t.co/{rng.getrandbits(48):012x}"),
    ]
    words = " ".join([words, *(make() for chance, make in extras if rng.random() < chance)])
    if rng.random() < 0.25:
        words = f"{rng.choice(_USERS)} {words}"
    if rng.random() < 0.15:
        words = f"RT {rng.choice(_USERS)}: {words}"
    return words


def make_picture(rng: random.Random, sentiment: str) -> Image.Image:
    """A landscape: sunny for positive, overcast with houses for neutral, rain at dusk for negative."""
    width, height = rng.choice([(320, 240), (240, 320), (300, 300), (400, 260), (480, 360)])
    sky, ground = {
        "positive": ((110, 190, 250), (110, 200, 70)),
        "neutral": ((190, 195, 200), (150, 150, 130)),
        "negative": ((45, 50, 75), (50, 55, 50)),
    }[sentiment]
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    horizon = int(height * rng.uniform(0.5, 0.75))
    shade = rng.uniform(0.75, 1.15)
    for y in range(height):
        color = sky if y < horizon else ground
        light = shade * (0.8 + 0.4 * y / height)
        draw.line([(0, y), (width, y)], fill=tuple(min(255, int(c * light)) for c in color))
    if sentiment == "positive":
        x, y, r = rng.randint(30, width - 30), rng.randint(30, horizon // 2), rng.randint(15, 35)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=(255, 225, 60))
        for _ in range(rng.randint(8, 20)):
            x, y = rng.randint(0, width), rng.randint(horizon, height)
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=rng.choice([(240, 60, 90), (250, 220, 40)]))
    elif sentiment == "neutral":
        for _ in range(rng.randint(3, 7)):
            x, w, h = rng.randint(0, width), rng.randint(25, 60), rng.randint(40, horizon)
            gray = rng.randint(100, 150)
            draw.rectangle([x, horizon - h, x + w, horizon], fill=(gray, gray, gray + 8))
    else:
        for _ in range(rng.randint(120, 260)):
            x, y, n = rng.randint(0, width), rng.randint(0, height), rng.randint(8, 20)
            draw.line([(x, y), (x - n // 3, y + n)], fill=(120, 130, 160))
    return picture
