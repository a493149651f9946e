"""Traces that a corpus wants and traces that it does not, with the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

SURE: dict[str, Any] = {
    "completion": "42",
    "answer": "42",
    "prompt": "How many?",
    "completion_tokens": 100,
    "mean_logprob": -0.2,
    "sampled_logprobs": [-0.1, -0.3],
    "support_counts": [1, 1],
    "support_logprobs": [np.float16(-0.01), np.float16(-0.02)],
}
SCHEMA = pa.schema(
    [
        ("completion", pa.string()), ("answer", pa.string()), ("prompt", pa.string()),
        ("completion_tokens", pa.int32()), ("mean_logprob", pa.float32()), ("sampled_logprobs", pa.list_(pa.float32())),
        ("support_counts", pa.list_(pa.uint8())), ("support_logprobs", pa.list_(pa.float16())),
    ]
)  # fmt: skip
MATH = r"""<think>
We want the roots of $x^2 - 5x + 6 = 0$. The discriminant is $\Delta = b^2 - 4ac = 25 - 24 = 1$.

So
\[
\begin{aligned}
x_1 &= \frac{5 + \sqrt{1}}{2} = 3, \\
x_2 &= \frac{5 - \sqrt{1}}{2} = 2.
\end{aligned}
\]
Wait, let me check: 3 · 2 = 6 and 3 + 2 = 5. Let β and δ be the roots, so β + δ = 5.
</think>

The roots are $\boxed{2}$ and $\boxed{3}$."""
CHINESE = (
    "首先，我们需要理解 Transformer 的注意力机制。设 $Q$、$K$、$V$ 分别为查询、键和值矩阵，"  # noqa: RUF001
    "那么输出等于 \\(softmax(QK^T)V\\)。\n因此，Attention 的计算复杂度是平方级的，"  # noqa: RUF001
    "而 Flash Attention 通过分块计算减少了显存的读写次数。最后的答案是：计算量变为原来的四倍。"  # noqa: RUF001
)
CODE = """Here is a function that does it:

```python
def total(values: list[int]) -> int:
    result = 0
    for value in values:
        result += value
    return result
```

It visits every value once."""
TABLE = "| planet | moons | radius |\n| --- | --- | --- |\n" + "".join(
    f"| {name} | {moons} | {radius} km |\n"
    for name, moons, radius in [("Mercury", 0, 2440), ("Venus", 0, 6052), ("Earth", 1, 6371), ("Mars", 2, 3390),
                                ("Jupiter", 95, 69911), ("Saturn", 146, 58232), ("Uranus", 28, 25362)]
)  # fmt: skip
POEM = "\n\n".join(
    f"{verse}\nRow, row, row your boat,\nGently down the stream,\nMerrily, merrily, merrily, merrily;"
    for verse in (
        "The morning mist is on the lake, the reeds are bending low",
        "An otter turns upon its back and watches where we go",
        "The evening star is in the west, the lamps are lit ashore",
        "And home is where the water ends, and we will row no more",
    )
)
GOOD = {
    "math": SURE | {"completion": MATH, "answer": r"The roots are $\boxed{2}$ and $\boxed{3}$."},
    "chinese": SURE | {"completion": CHINESE, "answer": CHINESE, "prompt": "请解释注意力机制。"},
    "code": SURE | {"completion": CODE, "answer": CODE, "prompt": "Write a Python function that sums a list."},
    "short": SURE,
    "table": SURE | {"completion": TABLE, "answer": TABLE},
    "poem": SURE | {"completion": POEM, "answer": POEM},
    "apology": SURE | {"answer": "I'm sorry for the confusion earlier. The right answer is 7, because 3 + 4 = 7."},
    "unsure": SURE | {"answer": "I can't say for sure, but the likeliest year is 1066."},
    "headings": SURE | {"completion": "### Instructions\nMix [flour] and <water>; x < 3.\n### Results\nBread."},
    "nothing": dict.fromkeys(SURE),
}
LOOP = "Let me compute the sum again. The sum of the first ten numbers is 55, so the answer should be 55. "
MIXED = (
    "Okay, let me think about this problem. 首先我们需要计算这个函数的导数，然后令它等于零。 "  # noqa: RUF001
    "The derivative is positive here, so 我们可以得到这个函数是单调递增的。 Therefore the minimum "
    "is at the left end, 也就是说最小值在零点取得。 So the answer is zero."
)
BAD = {
    "loop": ("repetition", SURE | {"completion": "Okay, the user wants a sum.\n\n" + LOOP * 30}),
    "wait": ("repetition", SURE | {"completion": MATH + "\n\nWait, no. Let me re-read it.\nHmm, so x is 3." * 25}),
    "characters": ("compressible", SURE | {"completion": "The answer is 1" + "0" * 3000}),
    "chinese loop": ("repetition", SURE | {"completion": "所以答案是三，但是我们需要再检查一遍。" * 20}),  # noqa: RUF001
    "mixed": ("mixed_scripts", SURE | {"completion": MIXED}),
    "stray": ("mixed_scripts", SURE | {"completion": "The capital of France является городом Париж, which is large."}),
    "im_start": ("leakage", SURE | {"completion": "It is 4.<|im_end|>\n<|im_start|>user\nAnd 3 + 3?"}),
    "inst": ("leakage", SURE | {"completion": "It is 4. [INST] And 3 + 3? [/INST] 6"}),
    "human": ("leakage", SURE | {"completion": "It is 4.\n\nHuman: And 3 + 3?\n\nAssistant: 6"}),
    "first human": ("leakage", SURE | {"completion": "Human: what is 3 + 3?"}),
    "tool": ("leakage", SURE | {"completion": 'I look it up. <tool_call>{"name": "search"}</tool_call>'}),
    "deepseek": ("leakage", SURE | {"completion": "It is 4.<｜User｜>And 3 + 3?"}),  # noqa: RUF001
    "refusal": ("refusal", SURE | {"answer": "I'm sorry, but I can't assist with that request."}),
    "typographic": ("refusal", SURE | {"answer": "I’m sorry, but I can’t help with that."}),  # noqa: RUF001
    "as an AI": ("refusal", SURE | {"answer": "As an AI language model, I cannot give medical advice."}),
    "chinese refusal": ("refusal", SURE | {"answer": "很抱歉，我无法回答这个问题。"}),  # noqa: RUF001
    "e-mail": ("personal_data", SURE | {"completion": "Ask maria.lopez@telefonica.es about it."}),
    "paragraph": ("long_paragraph", SURE | {"completion": " ".join(str(number**3) for number in range(1500))}),
    "code": ("code_in_prose", SURE | {"completion": CODE, "prompt": "What is the sum of 3 and 4?"}),
    "short": ("too_short", SURE | {"completion_tokens": 2}),
    "long": ("too_long", SURE | {"completion_tokens": 4001}),
    "unsure": ("low_logprob", SURE | {"mean_logprob": -1.5}),
    "unlikely": ("unlikely_token", SURE | {"sampled_logprobs": [-0.1, -13.0]}),
    "flat": ("high_entropy", SURE | {"support_counts": [3], "support_logprobs": [np.float16(-1.1)] * 3}),
}  # fmt: skip
