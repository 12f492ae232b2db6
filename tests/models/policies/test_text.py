from __future__ import annotations

import subprocess
import sys

import torch

from wovr.models.policies.text import TRIGRAMS, TextEncoder, tokenize


def test_tokens_are_the_same_in_every_process() -> None:
    code = "from wovr.models.policies.text import tokenize; print(tokenize('open the drawer', 4096, 48))"
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(tokenize("open the drawer", 4096, 48))


def test_case_punctuation_and_unicode_form_do_not_matter() -> None:
    assert tokenize("Open the  drawer!", 4096, 48) == tokenize("open, the drawer", 4096, 48)
    assert tokenize("caf\u00e9", 4096, 48) == tokenize("cafe\u0301", 4096, 48)


def test_one_list_a_word_within_the_buckets() -> None:
    tokens = tokenize("pick up extraordinarilylongwordsthatneverend", 50, 48)
    assert [len(word) for word in tokens] == [1, 1 + 4, 1 + 2, 1 + TRIGRAMS]
    assert all(1 <= number <= 50 for word in tokens for number in word)
    assert len(tokenize("a " * 100, 50, 10)) == 11
    assert len(tokenize("", 50, 10)) == 1


def test_words_that_look_alike_share_trigrams() -> None:
    cube, cubes, drawer = (set(tokenize(word, 1 << 20, 48)[1]) for word in ("cube", "cubes", "drawer"))
    assert len(cube & cubes) == 3  # <cu, cub, ube
    assert not cube & drawer


def test_unseen_words_and_empty_instructions_encode() -> None:
    encoder = TextEncoder(width=16)
    features = encoder(["grasp the zylophone 3 times", "", "抓住红色方块"])
    assert features.words.shape == (3, 6, 16)
    assert features.mask.tolist() == [[True] * 6, [True] + [False] * 5, [True, True] + [False] * 4]
    assert features.pooled.isfinite().all()
    assert (features.pooled[0] - features.pooled[1]).abs().max() > 1e-3


def test_encoding_does_not_depend_on_the_other_instructions() -> None:
    encoder = TextEncoder(width=16)
    short, long = "open", "pick up the red cube between the plate and the box"
    alone, together = encoder([short]), encoder([long, short, long, short])
    torch.testing.assert_close(together.pooled[1], alone.pooled[0])
    torch.testing.assert_close(together.words[3, :2], alone.words[0])
    torch.testing.assert_close(together.pooled[0], together.pooled[2], rtol=0, atol=0)


def test_order_of_words_matters() -> None:
    pooled = TextEncoder(width=16)(["red on blue", "blue on red"]).pooled
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3
