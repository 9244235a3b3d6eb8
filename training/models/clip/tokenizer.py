"""CLIP's tokenizer as a `tokenizers.Tokenizer`, which the SDK loads from ``tokenizer.json``.

open_clip's ``SimpleTokenizer`` is Python code: ftfy repairs the text, ``html.unescape`` runs twice,
whitespace is collapsed, letters are lowercased, a regular expression splits the text, byte pairs are merged.
Here each step is a component of the `tokenizers` library:

- ftfy and HTML: replacements (character widths, entities, Windows-1252 characters in the C1 range, Latin
  ligatures, quotes, terminal escapes, control characters), then NFC;
- Python's lowercasing, including the Greek final sigma;
- CLIP's split, byte-level characters, merges with ``</w>``, start and end of text, at most 77 tokens.

Some texts get other ids than in open_clip, because replacements are fixed patterns (a test covers the first
three):

- **Mojibake** (``sofÃ¡`` for ``sofá``) is not repaired: ftfy guesses encodings of the whole text.
- **Numeric entities** beyond U+00FF are decoded only for characters that have a named entity as well.
- **A text with a literal** ``<`` **and entities**: ftfy leaves the entities, and ``html.unescape`` decodes
  them later without cleaning the result (curly quotes stay curly). Here the result is cleaned.
- **A capital sigma** after a letter and more than three accents or apostrophes does not become a final sigma.
- **Letters newer than a library's Unicode tables** may split differently.
"""

import gzip
import html
import re
import unicodedata
from collections.abc import Iterator
from html.entities import html5

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pixelclip_sdk.errors import BackendUnavailableError
from pixelclip_sdk.support.packages import folder_of

__all__ = ["CONTEXT_LENGTH", "END_OF_TEXT", "START_OF_TEXT", "clip_tokenizer"]

CONTEXT_LENGTH = 77
START_OF_TEXT = 49406
END_OF_TEXT = 49407

_BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48894
_WORD_END = "</w>"
_SPECIAL = ("<start_of_text>", "<end_of_text>")
# Only the special texts and the contractions ignore case. Oniguruma's flag on a character class would match
# combining marks by their case-folded letters. U+0345 splits and is dropped, as in CLIP, where the flag
# removes it from every class.
_SPLIT = r"(?i:<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+"
# Whitespace of Python's str.split().
_SPACES = (
    r"[\x{9}-\x{d}\x{1c}-\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}"
    r"\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
)
# ftfy drops these, including \v and the separators \x1c-\x1f, which Python counts as whitespace.
_CONTROLS = r"[\x{0}-\x{8}\x{b}\x{e}-\x{1f}\x{7f}\x{206a}-\x{206f}\x{feff}\x{fff9}-\x{fffc}]"
_LIGATURES = {
    **{"ŉ": "'n", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ſt", "ﬆ": "st"},
    **{"[Ĳĳ]": "ij", "[Ǳǲǳ]": "dz", "[Ǆǅǆ]": "dž", "[Ǉǈǉ]": "lj", "[Ǌǋǌ]": "nj"},
}

_QUOTES = {"[\u201c-\u201f]": '"', "[\u02bc\u2018-\u201b]": "'"}
_CLEANED = re.compile("|".join([*_LIGATURES, *_QUOTES]))


def clip_tokenizer() -> Tokenizer:
    """Builds CLIP's tokenizer from open_clip's table of byte pairs.

    Returns:
        A tokenizer that adds 49406 and 49407 around a text and truncates it to 77 ids, ending in 49407.
        ``to_str()`` is deterministic. CLIP pads with 0 on the right.

    Raises:
        BackendUnavailableError: open_clip is not installed, or its table is not as expected.
    """
    merges = _merges()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # printable bytes first, as in CLIP
    words = [*letters, *(letter + _WORD_END for letter in letters), *map("".join, merges)]
    vocabulary = {word: i for i, word in enumerate([*words, *(text + _WORD_END for text in _SPECIAL)])}
    model = models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=_WORD_END)
    for text in _SPECIAL:
        merges += _merge_whole([token.value for token in model.tokenize(text)], vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=_WORD_END))
    tokenizer.normalizer = normalizers.Sequence([*_normalizers()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = _SPECIAL
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, START_OF_TEXT), (end, END_OF_TEXT)]
    )
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    return tokenizer


def _merges() -> list[tuple[str, str]]:
    """Reads CLIP's byte pairs, most frequent first, without importing open_clip (which imports torch)."""
    path = folder_of("open_clip") / _BPE_FILE
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    except OSError as error:
        raise BackendUnavailableError(
            f"{path} cannot be read: {error}. Install open_clip_torch again."
        ) from error
    # The first line is a header. CLIP does not use the pairs after these lines.
    merges = [tuple(line.split(" ")) for line in lines[1 : _MERGES + 1]]
    if len(merges) != _MERGES or any(len(pair) != 2 for pair in merges):
        raise BackendUnavailableError(
            f"{path} has {len(merges)} pairs; expected CLIP's {_MERGES}. Install open_clip_torch 3."
        )
    return [(first, second) for first, second in merges]


def _merge_whole(pieces: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Returns the merges that join the pieces of ``<start_of_text>`` into one id.

    CLIP gives the literal text the id of the special token, but only if its split finds it whole (not in
    ``!<start_of_text>``). A special token of `tokenizers` would ignore the split, so merges are used instead.
    Intermediate pieces get ids above CLIP's, which never appear in the output.
    """
    added = []
    joined = pieces[0]
    for piece in pieces[1:]:
        added.append((joined, piece))
        joined += piece
        vocabulary.setdefault(joined, len(vocabulary))
    return added


def _normalizers() -> Iterator[normalizers.Normalizer]:
    """Yields the cleaning steps in ftfy's order; independent steps are placed where they are cheapest."""
    for form, content in _widths().items():
        yield normalizers.Replace(form, content)
    # Texts may be escaped several times, "&amp;amp;lt;": decode all ampersands first.
    yield normalizers.Replace(Regex(r"&(?:(?:amp|AMP);?|#0*38(?![0-9]);?|#[xX]0*26(?![0-9a-fA-F]);?)+"), "&")
    yield from _replaced(_entities())
    yield from _replaced(_short_entities())
    for byte in range(0x80, 0xA0):  # Five of these bytes are undefined in Windows-1252.
        if content := bytes([byte]).decode("cp1252", errors="ignore"):
            yield normalizers.Replace(chr(byte), content)
    for pattern, content in {**_LIGATURES, **_QUOTES}.items():
        yield normalizers.Replace(Regex(pattern), content)
    yield normalizers.Replace(Regex(r"\x1b\[[\d;]*[a-zA-Z]"), "")
    yield normalizers.Replace(Regex(_CONTROLS), "")
    yield normalizers.NFC()
    yield from _replaced(_late_entities())
    yield normalizers.Replace(Regex(_SPACES), " ")
    yield normalizers.Strip()
    # Python's lower() turns a capital sigma at the end of a word into a final sigma; Rust's does not.
    # A look-behind has a fixed length, so at most three accents and apostrophes are skipped.
    before = "|".join(r"\p{Cased}" + r"\p{Case_Ignorable}" * count for count in range(4))
    yield normalizers.Replace(Regex(rf"(?<={before})Σ(?!\p{{Case_Ignorable}}*\p{{Cased}})"), "ς")
    yield normalizers.Lowercase()


def _replaced(entities: dict[str, list[str]]) -> Iterator[normalizers.Normalizer]:
    """Yields a replacement for each character → patterns of its entities without ``&``."""
    for content, patterns in entities.items():
        yield normalizers.Replace(Regex(f"&(?:{'|'.join(patterns)})"), content)


def _widths() -> dict[str, str]:
    """Returns fullwidth or halfwidth form → standard character (ftfy's ``fix_character_width``)."""
    forms = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in range(0xFF01, 0xFFF0)}
    return {"\u3000": " ", **{form: content for form, content in forms.items() if form != content}}


def _entities() -> dict[str, list[str]]:
    """Returns character → patterns of its entities, named (with ``;``) and numeric."""
    patterns: dict[str, list[str]] = {}
    for name, content in html5.items():
        if name.endswith(";"):
            patterns.setdefault(content, []).append(re.escape(name))
            upper = name.upper()
            # ftfy also decodes upper-case names that HTML does not define: &EACUTE;
            if name == name.lower() and html.unescape(f"&{upper}") == f"&{upper}":
                patterns.setdefault(content.upper(), []).append(re.escape(upper))
    for code, content in _numbered().items():
        end = ";" if _CLEANED.search(content) else ";?"
        patterns.setdefault(content, []).extend(f"{digits}{end}" for digits in _digits(code))
    return patterns


def _late_entities() -> dict[str, list[str]]:
    """Like `_entities`, for numbers without ``;`` of quotes and ligatures, which ftfy does not clean."""
    patterns: dict[str, list[str]] = {}
    for code, content in _numbered().items():
        if _CLEANED.search(content):
            patterns.setdefault(content, []).extend(_digits(code))
    return patterns


def _numbered() -> dict[int, str]:
    """Returns number → character: Latin-1 (with HTML's 128-159) and all characters with a named entity."""
    named = {ord(content) for content in html5.values() if len(content) == 1}
    return {code: html.unescape(f"&#{code};") for code in sorted({*range(256), *named})}


def _digits(code: int) -> list[str]:
    hexadecimal = "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in f"{code:x}")
    return [rf"#0*{code}(?![0-9])", rf"#[xX]0*{hexadecimal}(?![0-9a-fA-F])"]


def _short_entities() -> dict[str, list[str]]:
    """Returns character → the names that need no ``;``, longest first: ``&notit`` is ``¬it``."""
    patterns: dict[str, list[str]] = {}
    for name in sorted((name for name in html5 if not name.endswith(";")), key=len, reverse=True):
        patterns.setdefault(html5[name], []).append(name)
    return patterns
