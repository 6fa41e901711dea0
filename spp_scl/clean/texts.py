"""Texts: what is kept of a tweet, when it is empty, and when two tweets repeat each other."""

import re
import unicodedata

_RETWEET = re.compile(r"^(\s*rt\s+@\w+:?)+")
_LINK = re.compile(r"https?://\S+|www\.\S+|<url>")
# The limit of 140 characters may cut off a retweet's last link. Searched in the last word only: in a long
# text, a search to the end from each `htt` takes a time quadratic in its length.
_LAST_LINK = re.compile(rf"{_LINK.pattern}|\bhtt\S*$")
_USER = re.compile(r"@\w+")


def clean_text(text: str) -> str:
    """The tweet on one line, without control characters; nothing else changes."""
    # A lone surrogate, half of an emoji that some tool has cut, cannot be written as UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join(text.split())


def is_empty(text: str) -> bool:
    """Whether nothing in the text can be seen: only spaces, controls and zero-width characters."""
    # Not the whole of category C: an emoji newer than this Python is unassigned to it, and yet seen.
    return all(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp") for c in text)


def count_links(text: str) -> int:
    """How many links a text has, also as HFM writes them."""
    return len(_LINK.findall(text))


def normalize(text: str) -> str:
    """The key by which two tweets repeat each other.

    Lower case, without leading `RT @user:`, links, user names and punctuation. An empty key matches
    nothing.
    """
    head, _, last = _RETWEET.sub(" ", text.lower()).rpartition(" ")
    text = _USER.sub(" ", f"{_LINK.sub(' ', head)} {_LAST_LINK.sub(' ', last)}")
    kept = ""
    for c in text:
        # A mark belongs to the letter before it, as the vowel signs of Hindi and Thai do.
        mark = unicodedata.category(c)[0] == "M" and kept[-1:].strip()
        kept += c if c.isalnum() or mark else " "
    return " ".join(kept.split())
