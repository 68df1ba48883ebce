"""Token classes: the examples of the paper's Fig. 13, and text of every kind, token by token."""

import time
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from numerics import induction_pattern, text_classes


def classes_of(*tokens):
    """Return the text's classes as {name: tokens in it}, for tokens given as they stand one after the other."""
    stops = np.cumsum([len(token) for token in tokens])
    offsets = [(int(stop) - len(token), int(stop)) for token, stop in zip(tokens, stops, strict=True)]
    found = text_classes("".join(tokens), offsets)
    return {
        name: [token for token, inside in zip(tokens, members, strict=True) if inside]
        for name, members in found.items()
    }


def test_words_of_the_figure():
    found = classes_of(" the", " wa", "vel", "ength", " and", " differe", "nces", ".")
    assert found["word part"] == [" wa", "vel", " differe"]
    assert found["word end"] == ["ength", "nces"]


def test_formatting_of_the_figure():
    assert classes_of("####", " Title", "\n\n", "text")["formatting"] == ["####", "\n\n"]


def test_delimiters_of_the_figure():
    found = classes_of("f", " ((", "x", ")=", "0", " (", "W", ")", "=", "J", "(", "y", ")=0")
    assert found["left delimiter"] == [" ((", " (", "("]
    assert found["right delimiter"] == [")=", ")", ")=0"]


def test_induction_pattern_of_the_figure():
    a, b = 5, 9
    assert induction_pattern([[a, b, 1, 2, a, b]]).tolist() == [[False, False, False, False, True]]


@pytest.mark.parametrize(
    ("tokens", "part", "end"),
    [
        ([" whole", " words", " only", "."], [], []),
        ([" don", "'t"], [], []),  # apostrophes belong to no word
        ([" O", "'", "Br", "ien"], ["Br"], ["ien"]),
        ([" state", "-of", "-the", "-art"], [], []),
        ([" my", "_var", "iable"], ["_var"], ["iable"]),
        (["x", "86", " 2", "nd", " 19", "84"], [], []),
        (["(diff", "er", "ent", "),"], ["(diff", "er"], ["ent"]),
        (["cafe", "\u0301", "s"], ["cafe", "\u0301"], ["s"]),
        (["Ма", "ма"], ["Ма"], ["ма"]),
        (["我", "们", "的"], [], []),  # no spaces between words: nothing says where they end
        (["un", "b", "elievable words un", "done"], ["un", "b", "elievable words un"], ["elievable words un", "done"]),
    ],
)
def test_parts_and_ends_of_words(tokens, part, end):
    found = classes_of(*tokens)
    assert (found["word part"], found["word end"]) == (part, end)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["a", "\n", "b"], ["\n"]),
        (["a", "\r\n", "b"], ["\r\n"]),
        (["a", "\r", "\n", "b"], ["\r", "\n"]),
        (["if", " x", ":\n", "    ", " return"], [":\n", "    "]),
        (["\t", "x"], ["\t"]),
        ([" x", " ", "y"], []),
        (["-----", "text", " ===="], ["-----", " ===="]),
        (["--", "-", "text"], ["--", "-"]),
        (["a", "++", " b", " ->", " c"], []),
        (["1", "000", " aaaa"], []),
        (["- ", "item", "\n", "*", " item"], ["- ", "\n", "*"]),
        (["a", " -", " b", " *", " c"], []),
        (["a", " **", "bold", "**", " x"], [" **", "**"]),
        (["x", "**", "2"], []),
        (["__", "init", "__"], ["__", "__"]),
        (["#", " Head"], ["#"]),
        (["x", " #", " comment"], []),
        (["...", " and", " ", "."], ["..."]),
        (["((((", "x", "))))"], []),
    ],
)
def test_formatting(tokens, expected):
    assert classes_of(*tokens)["formatting"] == expected


@pytest.mark.parametrize(
    ("tokens", "left", "right"),
    [
        (["a", ")", " first"], [], []),  # closes nothing
        (["(", "a", " [", "b", "]", ")"], ["(", " ["], ["]", ")"]),
        (["(", "never", " closed"], ["("], []),
        (["f", "()", " g", "(", ")"], ["("], [")"]),
        (["say", ' "', "hello", '"', "."], [' "'], ['"']),
        (["f", '("', "a", '",', ' "', "b", '")'], ['("', ' "'], ['",', '")']),
        (["a", " dog", "'s", " 5", '"', " pipe"], [], []),
        (["don", "'", "t", " say", " '", "no", "'", "!"], [" '"], ["'"]),
        (["'", "tis", " the", " season"], [], []),
        (["“", "Hi", "”", " l", "’", "homme"], ["“"], ["”"]),
        (["‘", "it", "’", "s", "’"], ["‘"], ["’"]),
        (["«", "oui", "»"], ["«"], ["»"]),
        (["<div", ">", "x", "</", "div", ">", " a", " <", " b"], ["<div", "</"], [">", ">"]),
        (["if", " a", " <", " b", " and", " c", " >", " d"], [], []),
        (["use", " `", "x", "`", " or", "\n", "```", "\ncode", "\n\n", "```"], [" `", "```"], ["`", "```"]),
        (['"""', "Doc", "\n\n", "more", '"""'], ['"""'], ['"""']),
        (["print", '("', "a", ")", " b", '")'], ['("'], ['")']),
        (["(", "a", "\n\n", "b", ")"], ["("], [")"]),
        (['"', "open", "\n\n", "next", '"'], [], []),
        (["x", " = ", "{", "'", "k", "'", ":", " [", "1", "]}"], ["{", "'", " ["], ["'", "]}"]),
    ],
)
def test_delimiters(tokens, left, right):
    found = classes_of(*tokens)
    assert (found["left delimiter"], found["right delimiter"]) == (left, right)


def byte_level(texts, size, *, trim=True):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def test_bytes_within_a_character():
    text = "naïve 🙂 (“日”) Ωmega"
    encoded = byte_level([], 256).encode(text)  # every token is one byte
    assert len(encoded.ids) == len(text.encode())
    found = text_classes(text, encoded.offsets)
    first = text.encode().index("ï".encode())
    assert found["word part"][[first, first + 1]].all()  # both bytes of the letter
    assert found["word end"].sum() == 2  # the last bytes of naïve and Ωmega
    assert not found["word part"][len("naïve ".encode()) : len("naïve 🙂".encode())].any()
    assert found["left delimiter"].sum() == 1 + len("“".encode())
    assert found["right delimiter"].sum() == 1 + len("”".encode())


@pytest.mark.parametrize("trim", [True, False])
def test_offsets_with_and_without_white_space_say_the_same(trim):
    text = "The wavelength,\n\n    def f(x):\n\treturn  'y'\r\n#### End"
    encoded = byte_level([text] * 3, 300, trim=trim).encode(text)
    found = text_classes(text, encoded.offsets)
    tokens = [bytes(_BYTES[c] for c in token).decode() for token in encoded.tokens]
    stops = np.cumsum([len(t) for t in tokens])
    exact = text_classes(text, np.stack([stops - [len(t) for t in tokens], stops], axis=1))
    for name in found:
        np.testing.assert_array_equal(found[name], exact[name], err_msg=name)


_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = {chr(b): b for b in _PRINTED} | {chr(256 + k): b for k, b in enumerate(sorted({*range(256)} - {*_PRINTED}))}


@given(st.text(alphabet="ab '\"()[]{}<>`\n*#-_’‘“”é我\u0301 ", max_size=60), st.data())
def test_any_text_and_cut_has_classes(text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=len(text))) | {0, len(text)})
    spans = list(pairwise(cuts))
    found = text_classes(text, spans)
    assert {len(members) for members in found.values()} == {len(spans)}
    # Whoever joins all tokens into one has no words in pieces, and nothing between delimiters.
    whole = text_classes(text, [(0, len(text))] if text else [])
    assert not whole["word part"].any()
    assert not whole["word end"].any()
    assert not whole["right delimiter"].any()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30))
def test_induction_pattern_is_what_its_definition_says(ids):
    expected = []
    for k in range(1, len(ids)):
        earlier = [(ids[i - 1], ids[i]) for i in range(1, k)]
        expected.append((ids[k - 1], ids[k]) in earlier and ids[k - 1] != ids[k])
    assert induction_pattern([ids, ids[::-1]])[0].tolist() == expected


@pytest.mark.parametrize(
    ("text", "offsets", "match"),
    [
        ("abc", [(0, 9)], "token 0 stands at"),
        ("abc", [(2, 1)], "not within a text of 3"),
        ("abc", [(1, 2), (0, 1)], "token 1 stands before"),
    ],
)
def test_offsets_of_another_text_are_refused(text, offsets, match):
    with pytest.raises(ValueError, match=match):
        text_classes(text, offsets)


def test_33000_tokens_take_less_than_a_second():
    text = files("pydoc_data").joinpath("topics.py").read_text()[:140_000]
    stops = np.minimum(np.arange(4, len(text) + 4, 4), len(text))
    spans = np.stack([np.concatenate([[0], stops[:-1]]), stops], axis=1)[:33_000]
    assert len(spans) == 33_000
    start = time.process_time()
    text_classes(text, spans)
    induction_pattern(np.random.default_rng(0).integers(500, size=(600, 56)))
    assert time.process_time() - start < 1.0
