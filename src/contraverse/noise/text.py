"""A text cut into its words, in grapheme clusters, and the spans that no noise may touch."""

import re
from functools import cached_property

import regex

from contraverse.noise.keep import keeping

Span = tuple[int, int]
"""Start and end of a run of code points; the end is not part of it."""

# Scripts that are written without spaces between words.
_DENSE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー]"
_EXTEND = r"[\p{M}\p{Grapheme_Cluster_Break=Extend}\u200d]"
_DOMAINS = "com|org|net|edu|gov|info|io|ai|co|eu|uk|de|fr|es|it|nl|ru|jp|cn|in|br|au|ca|us|ch"
_PATH = r"(?:/[\w/.%?=&\#~+-]*[\w/])?"
_PROTECTED = rf"""
    (?i:https?|ftp)://[^\s<>"\p{{Han}}\p{{Hiragana}}\p{{Katakana}}\u3000-\u303f\uff00-\uffef]+(?<![.,;:!?)\]}}'"])
  | (?<![\w.@-])(?i:www)\.[\w.-]{{1,253}}\w{_PATH}
  | (?<![\w.+-])[\w.+-]{{1,64}}+@[\w-]{{1,63}}+(?:\.[\w-]{{1,63}}+)+             # an e-mail address
  | (?<![\w.@-])(?:[\w-]{{1,63}}+\.){{1,8}}(?i:{_DOMAINS})(?!\w){_PATH}           # a domain
  | (?<!\w)@\w{{1,64}}
  | \$?\{{\{{?[^\S\n]?[\w.:\-]{{0,40}}[^\S\n]?\}}?\}} | <[/!]?[A-Za-z][^<>\n]{{0,80}}> | \[[A-Z][A-Z0-9_]{{0,30}}\]
  | %\(\w{{1,40}}\)[sdf] | (?<!\w)%[sdf]\b | (?<!\w)\$[A-Za-z_]\w{{0,40}} | `[^`\n]{{1,80}}`    # placeholders, code
  | (?<!\w)[:;=]['’]?[-^o]?(?:[()\[\]|*\\/]|[DPpOo3](?!\w)) | <3(?!\d)           # emoticons
  | [$€£¥₹\#]?(?<![A-Za-z\d])[A-Za-z]{{0,40}}+\d[A-Za-z\d]*+                     # numbers
    (?:[.,:/’'-][A-Za-z]{{0,40}}+\d[A-Za-z\d]*+)*+%?
"""
_PREPEND = r"\p{Grapheme_Cluster_Break=Prepend}"
_LETTERS = rf"(?:(?!{_DENSE}|{_PREPEND}(?!\p{{L}}))\p{{L}}{_EXTEND}*+)+"
# The last alternative takes anything else by whole clusters, so that no word begins within one.
_TOKENS = rf"(?P<dense>(?:(?={_DENSE})\X){{1,2}})|(?P<word>{_LETTERS}(?:['’]{_LETTERS})*+)|(?P<space>\s+)|\X"
_UNPROTECTED_TOKENS = regex.compile(_TOKENS)
_PROTECTED_TOKENS = regex.compile(rf"(?P<protected>(?:{_PROTECTED}){_EXTEND}*+)|{_TOKENS}", flags=regex.VERBOSE)
# The same as _UNPROTECTED_TOKENS for ASCII, and what each text has that has something to protect.
_ASCII_TOKENS = re.compile(r"(?P<word>[A-Za-z]+(?:'[A-Za-z]+)*)|(?P<space>\s+)")
_PROTECTION_HINT = re.compile(rf"[\d@:;=<{{\[%$`]|(?i:www\.|\.(?:{_DOMAINS})\b)")
_CLUSTER = regex.compile(r"\X")
_MARK = regex.compile(rf"\p{{P}}{_EXTEND}*+")
_APOSTROPHES = "'’"

_NEGATIONS = """no not nor never none nobody nothing nowhere neither cannot without hardly ain't aren't can't couldn't
didn't doesn't don't hadn't hasn't haven't isn't mustn't needn't shouldn't wasn't weren't won't wouldn't""".split()
NEGATIONS = frozenset(_NEGATIONS) | {word.replace("'", "") for word in _NEGATIONS}
"""English words whose loss turns the meaning round, with and without apostrophes; slips leave them whole."""


class Text:
    """A text and its parts.

    A word is a run of letters of any script with their marks, inner apostrophes included; in scripts that are written
    without spaces two characters are taken for a word. Boundaries of words are boundaries of grapheme clusters.

    Args:
        text: any string.
        protect: leave alone URLs, e-mail addresses, domains, @names, numbers with the letters that stand at them,
            placeholders as ``{name}``, ``<tag>`` and ``[MASK]``, code in back-ticks, and emoticons.
        keep: words and phrases to leave alone, besides.

    Attributes:
        words: outside of protected spans, in order.
        dense: those of them that are of a script without spaces.
        spaces: runs of white space outside of protected spans, in order.
        protected: spans that stay as they are, in order.
    """

    def __init__(self, text: str, protect: bool = True, keep: tuple[str, ...] = ()) -> None:
        self.text = text
        self.ascii = text.isascii()
        self.words: list[Span] = []
        self.dense = set[Span]()
        self.spaces: list[Span] = []
        self.protected: list[Span] = []
        protect = protect and _PROTECTION_HINT.search(text) is not None
        tokens = _PROTECTED_TOKENS if protect else _ASCII_TOKENS if self.ascii else _UNPROTECTED_TOKENS
        spans = {"word": self.words, "dense": self.words, "space": self.spaces, "protected": self.protected}
        done = 0
        for start, end in [*keeping(keep).spans(text), (len(text), len(text))]:
            for match in tokens.finditer(text, done, start):
                if kind := match.lastgroup:
                    spans[kind].append(match.span())
                    if kind == "dense":
                        self.dense.add(match.span())
            if end > start:
                self.protected.append((start, end))
            done = end

    def __getitem__(self, span: Span) -> str:
        return self.text[span[0] : span[1]]

    def clusters(self, word: Span) -> list[Span]:
        """Grapheme clusters of ``word``."""
        start, end = word
        if self.ascii or self.text[start:end].isascii():
            return list(zip(range(start, end), range(start + 1, end + 1), strict=True))
        return [match.span() for match in _CLUSTER.finditer(self.text, start, end)]

    def letters(self, word: Span) -> list[Span]:
        """Grapheme clusters of ``word`` that are letters: all but apostrophes."""
        clusters = self.clusters(word)
        if "'" in self[word] or "’" in self[word]:
            return [span for span in clusters if self.text[span[0]] not in _APOSTROPHES]
        return clusters

    @cached_property
    def editable(self) -> list[list[Span]]:
        """Letters of each word that can lose or change one and stay the word that it is, as far as a rule can tell.

        Shorter words turn into others, so that these have at least three letters; `NEGATIONS` are none of them. In
        scripts without spaces every pair of characters is one.
        """
        return [letters for _, letters in self._editable]

    @cached_property
    def inner(self) -> list[list[Span]]:
        """`editable` without the first letters, which are right in more than nine typos of ten.

        Pollock and Zamora (1984), Automatic spelling correction in scientific and scholarly text. Of scripts without
        spaces the first as well.
        """
        return [letters if word in self.dense else letters[1:] for word, letters in self._editable]

    @cached_property
    def _editable(self) -> list[tuple[Span, list[Span]]]:
        words = []
        for word in self.words:
            length = word[1] - word[0]
            if length < (2 if word in self.dense else 3):
                continue
            letters = self.letters(word)
            if len(letters) < (2 if word in self.dense else 3):
                continue
            if length > 9 or self[word].casefold().replace("’", "'") not in NEGATIONS:
                words.append((word, letters))
        return words

    @cached_property
    def latin(self) -> list[int]:
        """Positions of the letters A to Z, a to z in words, those that carry a mark left out."""
        text = self.text
        if self.ascii:
            return [i for start, end in self.words for i in range(start, end) if text[i] != "'"]
        return [
            start
            for word in self.words
            for start, end in self.letters(word)
            if end == start + 1 and text[start].isascii()
        ]

    @cached_property
    def gaps(self) -> list[Span]:
        """White space between two words that no line break is in, and that touches no protected span."""
        starts, ends = {word[0] for word in self.words}, {word[1] for word in self.words}
        return [gap for gap in self.spaces if gap[0] in ends and gap[1] in starts and "\n" not in self[gap]]

    @cached_property
    def free_words(self) -> list[Span]:
        """Words that no protected span follows at once."""
        starts = {span[0] for span in self.protected}
        return [word for word in self.words if word[1] not in starts]

    @cached_property
    def punctuation(self) -> list[Span]:
        """Punctuation marks that are outside of protected spans and touch none."""
        marks = [match.span() for match in _MARK.finditer(self.text)]
        if not self.protected:
            return marks
        near = {i for start, end in self.protected for i in range(start - 1, end + 1)}
        return [mark for mark in marks if mark[0] not in near and mark[1] - 1 not in near]
