# %% [markdown]
# (sec-4-3-lab)=
# # Text, computed
#
# What {ref}`sec-4-3` describes: binary codes of documents, three encoders, decoders with up to two hidden layers. First a
# training that runs here, on a corpus made on the spot whose law is known, so that the likelihood that is lost can be measured; then
# {ref}`the paper's Table 2 <tab-2>` beside stored runs on 20 Newsgroups. `-p corpus 20news` runs the live part on the real corpus
# instead, with the small settings below; `--profile full` has {ref}`those of the table <own-text-command>`. Values are nats a document. A NELBO is relative to the saturated multinomial ({eq}`own-nelbo-saturated`) unless it is said to contain the
# base measure.

# %% tags=["parameters"]
corpus: str = "curved"  # in {curved, harmonium, 20news}: documents; the first two are made on the spot
bits: list[int] = [6]  # in [1, 64]: lengths of the codes
encoders: list[str] = ["e1", "e2", "e3"]  # in {e1, e2, e3}: encoders
d_hidden: list[int] = [0, 1]  # in [0, 2]: hidden layers of the decoder
estimator: str = "arm"  # in {arm, disarm, exact}: gradient; exact: up to 8 bits, with d_hidden 0 up to 20
seed: int = 0  # in [0, 2**31): of first weights, order and codes
epochs: int = 60  # in [1, 10**6]: with one pair of codes for each document
epochs_many: int = 6  # in [0, 10**6]: after them, with ten pairs
learning_rate: float = 0.01  # in (0, 1]: of Adam
clip: float = 0.0  # in [0, 1e36): greatest norm of a step's gradient; 0: none
activation: str = "relu"  # in {relu, leaky_relu}: of hidden layers
first_weights: str = "torch"  # in {torch, he}: the law of all layers, before training
first_bias: str = "random"  # in {random, frequencies}: of the decoder, before training
batch_size: int = 200  # in [1, 10**6]: documents in a step
width: int = 64  # in [1, 4096]: units of a hidden layer
vocabulary: int = 0  # in [0, 61188]: words; 0: the paper's 10000 of 20 Newsgroups, 200 of a made corpus
held_out: int = 0  # in [0, 10**5]: training documents that select the epoch; 0: the test set, as in the paper
device: str = "cpu"  # in {cpu, cuda, auto}: where to train; auto: CUDA if it is there
results_dir: str = ""  # folder to store this run's records in, relative to the project; empty: nowhere
checkpoint_dir: str = ""  # folder for checkpoints, relative to the project; empty: none

# %% tags=["hide-input"]
import dataclasses
import itertools
import math
import statistics

import matplotlib.pyplot as plt
import torch

from efvae import records, scoreboard, text_claims, text_table
from efvae.data import synthetic
from efvae.experiments import text, text_rbm, text_words
from efvae.families import all_bits
from efvae.plots import text as plots
from efvae.plots.text_codes import precision
from efvae.text.model import LISTED_BITS, TextVAE
from efvae.text.neighbours import neighbours_text
from efvae.text.retrieval import bag_of_words_metrics, code_logits, retrieval_metrics
from efvae.word_counts import base_measure_floor, cross_entropy, log_base_measure

# %% tags=["hide-input", "check"]
real = corpus == "20news"
configs = [
    text.Config(
        corpus=corpus,
        bits=m,
        encoder=encoder,
        d_hidden=depth,
        estimator=estimator,
        seed=seed,
        epochs=epochs,
        epochs_many=epochs_many,
        batch_size=batch_size,
        learning_rate=learning_rate,
        clip=clip,
        activation=activation,
        first_weights=first_weights,
        first_bias=first_bias,
        width=width,
        vocabulary=vocabulary or (10000 if real else 200),
        held_out=held_out,
        precision="bfloat16" if real else "float32",
    )
    for m, depth, encoder in itertools.product(bits, d_hidden, encoders)
]
for config in configs:
    text.check(config)
if len(set(map(text.needed, configs))) < len(configs):
    raise ValueError("bits, encoders and d_hidden must have each value once")
# Statements about what training reaches hold for this setting; the laws below hold always.
checked = (
    corpus == "curved"
    and first_bias == "random"
    and bits == [6]
    and epochs >= 60
    and learning_rate == 0.01
    and 64 <= width <= 512
)

# %% [markdown]
# ## Training
#
# All cells are trained in one pass over the documents. The text of the made corpora consists of 2000 training and 1000 test documents of 200
# words, drawn from 64 codes:
#
# - `curved` has a decoder with a hidden layer, which no harmonium has;
# - `harmonium` is a multinomial–Bernoulli RBM at each length.

# %%
checkpoint = records.project_root() / checkpoint_dir if checkpoint_dir else None
results = records.project_root() / results_dir if results_dir else None
quiet = None if real else lambda line: None
trained = text.solve(configs, checkpoint, quiet, device=device, results=results)
train, test = trained[0].train, trained[0].test
print(f"{train.n_documents} training and {test.n_documents} test documents, {train.n_words} words")

# %% [markdown]
# The two conventions differ by a number that no model changes, the mean of {eq}`own-nelbo-floor`. Below, two numbers that frame the
# table: what a model without a code reaches (every document from the corpus' own frequencies), and the floor.

# %%
totals = train.word_totals() + 1 / train.n_words
for name, x in (("training", train), ("test", test)):
    unigram = float((cross_entropy(x, (totals / totals.sum()).log()) - log_base_measure(x)).mean())
    floor = float(base_measure_floor(x).mean())
    print(f"{name:9} saturated model   floor   0.00  without a code {unigram - floor:7.2f}")
    print(f"{'':9} base measure      floor {floor:6.2f}  without a code {unigram:7.2f}")

# %% mystnb={"figure": {"name": "own-text-curves", "caption": "This run: NELBO relative to the saturated multinomial over the epochs, on training documents (dashed) and test documents (solid), by encoder; the first epochs lie above the range. The curve of training documents is taken as the epoch goes, so that it lags behind."}, "image": {"alt": "One panel for each decoder. In each the curves of the three encoders fall over the epochs; in the order of the text below, the encoder of counts is lowest and the linear encoder of frequencies highest. Curves of training and test documents nearly coincide."}}
titles = {0: "linear decoder", 1: "1 hidden layer", 2: "2 hidden layers"}


def panels(of) -> dict[str, dict]:
    """A value of each cell by decoder and encoder."""
    found: dict[str, dict] = {}
    for cell in trained:
        config = cell.record.config
        title = f"{config['bits']} bits, {titles[config['d_hidden']]}"
        found.setdefault(title, {})[config["encoder"]] = of(cell)
    return found


figure = plots.learning_curves(panels(lambda cell: cell.record.curve))
plt.show()

# %% [markdown]
# ## What the NELBO lacks, exactly
#
# Few bits can be enumerated, so the likelihood of the trained model is a sum over all codes and the gap between likelihood and ELBO is exact
# ({py:func}`efvae.text.evaluate.evaluate`). The family part is what even the best factorized posterior of each document would leave; the amortization
# part is what the encoder loses against that one. On a made corpus a third part is known, too: the log-likelihood that the truth has and
# the model has not. Codes of more than 16 bits are not listed: there the gap and its parts are estimated, on 200 test documents, and marked ~.

# %% tags=["hide-input"]
law = None if real else {"curved": synthetic.curved_law, "harmonium": synthetic.harmonium_law}[corpus](test.n_words)
if law is not None:
    # log p(x | l): the models say nothing of the length
    log_length = dict(zip(law.lengths.tolist(), law.log_length_code.logsumexp(1).tolist(), strict=True))
    given = torch.tensor([log_length[length] for length in test.length().tolist()], dtype=torch.float64)
    truth = float((synthetic.log_likelihood(law, test) - given).mean())

for cell in trained:
    found = cell.record.metrics
    model: TextVAE = cell.best
    if model.bits <= 10 and not real:  # the definition: a table of all codes and documents, dense
        log_words = model.decode(all_bits(model.bits).float()).double().log_softmax(-1)
        joint = log_words.detach() @ test.dense(torch.float64).T - model.bits * math.log(2)
        likelihood = (joint.logsumexp(0) + log_base_measure(test)).mean()
        floor = found["base_measure_floor_test"]
        assert abs(float(likelihood) - (found["log_likelihood_test"] - floor)) < 1e-3
        assert found["gap_test"] > 0
        assert found["gap_family_test"] > -1e-6
        assert found["gap_amortization_test"] > -1e-3
        parts = found["gap_family_test"] + found["gap_amortization_test"]
        assert abs(parts - found["gap_test"]) < 1e-3
        # the NELBO of the record is from one code for each document, at the epoch of the lowest such estimate
        assert abs(found["nelbo_test"] + found["elbo_test"]) < 3


# %% mystnb={"figure": {"name": "own-text-gap", "caption": "This run, test documents: what the ELBO of each model lacks to the log-likelihood of the truth, in its parts. Computed by enumeration of all codes, no sampling, up to 16 bits; ~: estimated. On a corpus whose law is not known the grey part is left out."}, "image": {"alt": "Stacked bars for the three encoders, one panel for each decoder. The encoder of counts has the smallest sum. Encoders of frequencies have a large amortization part."}}
def gap_of(cell) -> tuple[float, float, float]:
    """Gap of test documents, its family part and its amortization part."""
    found = cell.record.metrics
    if "gap_test" in found:
        return found["gap_test"], found["gap_family_test"], found["gap_amortization_test"]
    gap, family = found["gap_ais_test"], found["gap_fitted_ais_test"]
    return gap, family, gap - family


def stack(cell) -> dict[str, float]:
    """The parts of what the ELBO lacks."""
    found, (gap, family, amortization) = cell.record.metrics, gap_of(cell)
    likelihood = found.get("log_likelihood_test", gap - found["nelbo_test"]) - found["base_measure_floor_test"]
    known = {} if law is None else {"log-likelihood lost to the truth": truth - likelihood}
    return known | {"gap, family part": family, "gap, amortization part": amortization}


exact = {f"{cell.record.config['bits']} bits" for cell in trained if "gap_test" in cell.record.metrics}
parted = panels(stack)
figure = plots.parts(
    {title if title.split(",")[0] in exact else f"~ {title}": bars for title, bars in parted.items()}, "nats a document"
)
plt.show()

# %% [markdown]
# The same in numbers, in both conventions. These come from a training with random codes: on another processor the decimals differ. The order is asserted.

# %% tags=["nbval-ignore-output"]
if law is not None:
    print(f"truth, −log p*(x | l), with base measure                {-truth:7.2f}")
print("bits layers encoder   NELBO   base    cross      KL   gap  family  amort.")
columns = ("nelbo_test", "nelbo_test_base", "nelbo_test_cross", "kl_test")
for cell in trained:
    c, m = cell.record.config, cell.record.metrics
    shown = " ".join(f"{value:7.2f}" for value in (*(m[name] for name in columns), *gap_of(cell)))
    print(f"{c['bits']:4} {c['d_hidden']:6} {c['encoder']:>7} {shown}{'' if 'gap_test' in m else ' ~'}")

# %% [markdown]
# - *NELBO*: lowest over the epochs, relative to the saturated multinomial; *base*: the same with the base measure.
# - *cross*: each half of the test set at the epoch that the other half selects.
# - *KL*: the divergence from the prior at the selected epoch. The rest: exact, see above.

# %%
if checked:
    by = {(c.record.config["d_hidden"], c.record.config["encoder"]): c.record.metrics for c in trained}
    for depth in {depth for depth, _ in by}:
        order = [by[depth, encoder]["nelbo_test"] for encoder in ("e1", "e2", "e3") if (depth, encoder) in by]
        assert all(low + 1 < high for low, high in itertools.pairwise(order))
    print("asserted: e1 < e2 < e3 by more than a nat with each decoder;")
    for cell in trained:
        m = cell.record.metrics
        lost = truth - (m["log_likelihood_test"] - m["base_measure_floor_test"])
        assert lost > m["gap_test"] > m["gap_amortization_test"] > 4 * m["gap_family_test"]
    for depth in {depth for depth, _ in by}:
        of_encoders = [by[depth, encoder] for encoder in ("e1", "e2", "e3") if (depth, encoder) in by]
        for name, sign in (("log_likelihood_test", -1), ("gap_test", 1)):  # both losses grow from e1 to e3
            assert all(sign * low[name] < sign * high[name] for low, high in itertools.pairwise(of_encoders))
    print("in each cell more likelihood is lost than gap left, and nearly all of")
    print("the gap is amortization")
if law is not None:
    # no model beats the truth by more than the sampling error of the mean over documents
    assert all(cell.record.metrics["nelbo_test_base"] > -truth - 1 for cell in trained)

# %% [markdown]
# ### How much of it is the encoder's doing?
#
# One training, one learning rate, one random start: the order above may be that of the family, or of how far each training came. So here are $e_1$ and
# $e_3$ with the linear decoder once more, begun at the frequencies of the words ({ref}`own-idle-bits`) and with five times the rate.

# %% tags=["nbval-ignore-output"]
if checked:
    again = [
        dataclasses.replace(config, first_bias="frequencies", learning_rate=5 * learning_rate)
        for config in configs
        if config.d_hidden == 0 and config.encoder in ("e1", "e3")
    ]
    print("linear decoder  NELBO    KL   gap   likelihood lost to the truth")
    nelbo_again: dict[str, float] = {}
    for cell in text.solve(again, progress=lambda line: None) if again else []:
        m, encoder = cell.record.metrics, cell.record.config["encoder"]
        before = by[0, encoder]
        losses = {}
        for name, found in (("as above", before), ("again", m)):
            losses[name] = lost = truth - (found["log_likelihood_test"] - found["base_measure_floor_test"])
            print(
                f"{encoder} {name:11} {found['nelbo_test']:6.2f} {found['kl_test']:5.2f} {found['gap_test']:5.2f}  {lost:6.2f}"
            )
        assert m["nelbo_test"] + 2 < before["nelbo_test"]
        assert m["gap_test"] < before["gap_test"]
        assert encoder == "e1" or losses["again"] < 0.5 * losses["as above"]
        nelbo_again[encoder] = found["nelbo_test"]
    if len(nelbo_again) == 2:
        leads = by[0, "e3"]["nelbo_test"] - by[0, "e1"]["nelbo_test"], nelbo_again["e3"] - nelbo_again["e1"]
        print(
            f"e1 is ahead of e3 by {leads[0]:.1f} nats above and by {leads[1]:.1f} again: part of the order is training"
        )
        assert 0 < leads[1] < leads[0]

# %% [markdown]
# (own-retrieval)=
# ## What the codes are for
#
# Test documents ask for the training documents with the nearest codes. Documents of the query's own group count as found; the groups of a made corpus are its
# true codes. Ties in the distance are taken by expectation ({py:func}`efvae.text.retrieval.expected_precision`). The words themselves, and a
# random order, for comparison. *by medians*: each bit cut at its median over the training documents in place of probability one half. Stored runs below are at 100 documents; the made corpora have only some thirty documents in a group.

# %% tags=["nbval-ignore-output"]
nearest = 100 if real else 20
print(f"share of the query's group among the {nearest} nearest")
for cell in trained:
    c, found = cell.record.config, retrieval_metrics(cell.best, train, test, nearest)
    print(
        f"{c['bits']:2} bits, {titles[c['d_hidden']]:15} {c['encoder']}   {found[f'precision_at_{nearest}']:.3f}"
        f"   by medians {found[f'precision_at_{nearest}_median']:.3f}"
    )
words = bag_of_words_metrics(train, test, nearest)
for label, name in (("raw counts", f"precision_at_{nearest}_counts"), ("tf-idf", f"precision_at_{nearest}_tf_idf")):
    print(f"words, {label:22}   {words[name]:.3f}")
print(f"{'random order':29}   {words['precision_chance']:.3f}")

# %% [markdown]
# One test document and its neighbours: distance, number, group, and the words that set each document apart most. A made corpus has numbers for words;
# with `-p corpus 20news` they are words.

# %% tags=["nbval-ignore-output"]
model = trained[0].best
codes = (code_logits(model, train) > 0, code_logits(model, test) > 0)
print(neighbours_text(codes, train, test, 0, (trained[0].vocabulary, trained[0].names), k=5))

# %% [markdown]
# ## Table 2
#
# From here on everything is read from stored records of runs on 20 Newsgroups, `results/sec4_3_text`; nothing depends on the parameters above.
# The training is {ref}`the paper's <app-c2>`: 1000 epochs with one pair of codes for each document, 500 with ten. Numbers are relative to the saturated multinomial.
#
# - *The verdict here is relative*: within 1 % or 3 % of the printed number, or further. That is about 4 and 12 nats on test and as little as 1.3 and 4 on training documents.
#   With a linear decoder and 16 bits or more the printed test values of $e_2$ and $e_3$ are 3 to 4 nats apart: 1 % does not tell those two apart.
# - *The {doc}`../book/scoreboard` has another rule*, set before the runs: what is more than 3 nats off is a miss there, and the last lines count by it.
# - *Layout*: first as in the paper, printed number / ours in whole nats, *!* for a miss; then one line for each number. A standard deviation is shown from three seeds on.

# %%
protocol = text_table.settings((8, 0, "e1"))  # all cells of the table share what is taken of it
SIZE = {
    name: protocol[name]
    for name in ("corpus", "vocabulary", "width", "batch_size", "clip", "activation", "first_weights")
}
paper, stored = text_table.printed(), text_table.cells_of()
rows = text_table.entries(stored, paper)
(nats,) = {float(target.tolerance) for target in scoreboard.targets() if target.item == "tab-2"}
print(text_table.laid_out(rows))
off_on_test = [row for row in rows if row.split == "test" and abs(row.difference) > nats]
assert len(off_on_test) == 5
assert all(row.cell[2] == "e2" and row.difference > 0 for row in off_on_test)
for encoder in text.ENCODERS:
    by_encoder = [row.difference for row in rows if row.split == "test" and row.cell[2] == encoder]
    above_print = sum(difference > 0 for difference in by_encoder)
    print(f"test, {encoder}: {statistics.fmean(by_encoder):+.1f} in the mean, above print in {above_print} of 12")
    assert (encoder, above_print) in {("e1", 1), ("e2", 10), ("e3", 8)}
for split in text_table.SPLITS:
    off = [(abs(row.difference), row.paper) for row in rows if row.split == split and row.difference is not None]
    within = [sum(nat <= nats for nat, _ in off)]
    within += [sum(nat <= share * printed for nat, printed in off) for share in (0.01, 0.03)]
    print(f"within {nats:g} nats, 1 %, 3 %, {split:5}: {within} of {len(off)}")
    assert within == {"train": [12, 13, 26], "test": [31, 33, 36]}[split]
assert all(3 <= paper["test", (m, 0, "e3")] - paper["test", (m, 0, "e2")] <= 4 for m in (16, 32, 64))
misses = [row for row in rows if row.verdict == "miss"]
above = [row for row in rows if row.split == "train" and row.difference > 0]
assert (len(misses), {row.split for row in misses}, len(above)) == (10, {"train"}, 32)
assert sum(row.cell[2] == "e3" for row in above) == 12

# %%
print(text_table.told(rows))

# %% [markdown]
# All records of seed 0 come from one GPU, in three commands, each of which trains the 12 cells with one depth of the decoder together. Those of other seeds come from a GPU of the same kind, but for the linear decoder with 8 bits, whose are from a CPU.
# Below: seconds of the training, with the evaluation of all test documents after each epoch.

# %%
minutes = 0.0
for depth, number_of_seed in itertools.product(text_table.DEPTHS, range(3)):
    of_depth = [record for (_, d, _), found in stored.items() if d == depth for record in found]
    here = [r for r in of_depth if r.config["seed"] == number_of_seed and "cpu" not in r.provenance["device"]]
    (device,) = {record.provenance["device"] for record in here}
    took = sum(record.provenance["seconds"] for record in here)
    minutes += took / 60 * (number_of_seed == 0)
    print(f"{depth} hidden layers, seed {number_of_seed}: {len(here):2} cells, {took:.0f} s on one {device}")
print(f"all of seed 0: {minutes:.1f} minutes")
assert round(minutes, 1) == 11.8
assert 75 < 16 * 60 / minutes < 85  # beside the 16 hours of the replication

# %% [markdown]
# What another seed changes: the standard deviation of a number of the table, where there are three seeds, and the largest distance between two seeds of a cell.

# %%
for split in text_table.SPLITS:
    spreads = [row.spread for row in rows if row.split == split and row.spread is not None]
    ranges = [max(row.values) - min(row.values) for row in rows if row.split == split and len(row.values) > 1]
    print(
        f"{split:5}  {len(spreads)} cells with three seeds: standard deviation {statistics.median(spreads):.1f} in the"
        f" median,\n       {max(spreads):.1f} at most; {len(ranges)} with two or three: apart by {max(ranges):.1f} at most"
    )
    assert statistics.median(spreads) < (0.6 if split == "test" else 1.5)
    assert max(spreads) < (2.7 if split == "test" else 7)
    assert max(ranges) < (4.7 if split == "test" else 13)

# %% [markdown]
# How far apart two runs of a cell lie: some were run on a CPU as well, in full or for the first epochs only, with other random numbers. *float32*: that CPU has no units for bfloat16. Shown is the lowest NELBO in the epochs that both have stored.
# For a scale, at the end how far two seeds of a cell on GPUs are apart at the last epoch that both of a row have: the two machines differ somewhat more. With two or three seeds, an effect of device or precision is neither shown nor excluded. (A linear decoder's loops are in float32 on any CPU; the mark is about the other products.)

# %% tags=["hide-input"]
print("bits layers encoder epochs           train: CPU    GPU   diff    test: CPU    GPU   diff")
apart: dict[str, list[float]] = {"train": [], "test": []}
seeds_apart: dict[str, list[list[float]]] = {"train": [], "test": []}  # of each row, all pairs
for record in sorted(
    records.load(text.STEM, records.results_root() / "cpu"),
    key=lambda r: [r.config[key] for key in ("d_hidden", "bits", "encoder", "epochs", "epochs_many")],
):
    c = record.config
    cell, epochs = (c["bits"], c["d_hidden"], c["encoder"]), c["epochs"] + c["epochs_many"]
    wide = "float32" if "float32" in record.provenance["device"] else ""
    line = f"{cell[0]:4} {cell[1]:6} {cell[2]:>7} {epochs:6} {wide:7}"
    pair = (record, stored[cell][0])
    both_have = set.intersection(*(set(r.curve["epoch"]) for r in pair))  # long curves are stored thinned
    for split in text_table.SPLITS:
        lows = [
            min(v for e, v in zip(r.curve["epoch"], r.curve[f"nelbo_{split}"], strict=True) if e in both_have)
            for r in pair
        ]
        apart[split].append(lows[1] - lows[0])
        of_seeds = [
            min(r.curve[f"nelbo_{split}"][i] for i, e in enumerate(r.curve["epoch"]) if e <= max(both_have))
            for r in stored[cell]
        ]
        seeds_apart[split].append([abs(a - b) for a, b in itertools.combinations(of_seeds, 2)])
        line += f"  {lows[0]:11.1f} {lows[1]:6.1f} {apart[split][-1]:+6.1f}"
    print(line)
for split, differences in apart.items():
    median, most = statistics.median(map(abs, differences)), max(map(abs, differences))
    beside = statistics.median(itertools.chain(*seeds_apart[split]))
    beyond = sum(abs(d) > max(pairs) for d, pairs in zip(differences, seeds_apart[split], strict=True))
    assert most < 7
    print(f"{split}: apart by {median:.2f} in the median, by {most:.1f} at most; two seeds by {beside:.2f};")
    print(f"  {beyond} of {len(differences)} rows further than any two seeds of the cell")
    of_machines, of_seeds = {"train": (1.5, 1.2), "test": (0.8, 0.5)}[split]
    assert (round(median, 1), round(beside, 1)) == (of_machines, of_seeds)
    assert beyond in (8, 9)
    assert len(differences) == 22

# %% mystnb={"figure": {"name": "own-text-table", "caption": "Table 2 as a picture. Lines with large open marks: the printed numbers. Filled marks: our runs, means over two or three seeds. NELBO relative to the saturated multinomial; the two columns have different scales."}, "image": {"alt": "Six panels, training documents on the left and test documents on the right, decoders with no, one and two hidden layers from top to bottom, NELBO against 8, 16, 32 and 64 bits for three encoders. The printed lines are in the order e1, e2, e3 from low to high, but with 16 bits behind one layer on test, where e2 is above e3. Our marks lie on the lines but for training documents with e1 and e2 behind two hidden layers and with e2 at 32 and 64 bits, and on test documents e2 at 8 and 32 bits behind one layer and at 8 and 16 bits behind two, where they lie above."}}
figure = plots.table_2(paper, {"our runs": {(row.split, row.cell): row.ours for row in rows if row.ours is not None}})
plt.show()

# %% [markdown]
# ### Both conventions, and who selects the epoch
#
# Of the same records; means over seeds.
#
# - *train*, *test*: relative to the saturated multinomial, as in the table; *base*, after each: with the base measure.
# - *cross*, on test: each half of the test set at the epoch that the other half selects, which costs nothing and does not let a document select for itself.
# - *last*, on test: after the last epoch, selected by nobody.
# - *epoch*: the one that the test set selects; *KL*: the divergence from the prior there.

# %%
selection = [f"nelbo_{split}{of}" for split in text_table.SPLITS for of in ("", "_base")]
selection += ["nelbo_test_cross", "nelbo_test_last", "epoch_test", "kl_test"]
print("bits layers encoder  train   base   test   base  cross   last  epoch    KL  seeds")
for (m, depth, encoder), found in stored.items():
    means = [statistics.fmean(text_table.values(found, metric)) for metric in selection]
    shown = " ".join(f"{mean:6.1f}" for mean in means[:6])
    print(f"{m:4} {depth:6} {encoder:>7} {shown} {means[6]:6.0f} {means[7]:5.1f}  {len(found):5}")
    by_selection = [record.metrics["nelbo_test_cross"] - record.metrics["nelbo_test"] for record in found]
    assert statistics.fmean(by_selection) < 1.85  # what the selection by the test set itself is worth
    assert max(by_selection) < 3

# %% mystnb={"figure": {"name": "own-text-stored-curves", "caption": "Stored runs, seed 0: NELBO relative to the saturated multinomial over the epochs, training documents (dashed) and test documents (solid). The grey line marks the change from one to ten pairs of codes; the first epochs lie above the range."}, "image": {"alt": "Six panels: 8, 16 and 64 bits from top to bottom, a linear decoder on the left and one with two hidden layers on the right. On the left test curves flatten out and, for more bits, rise again slowly. On the right those of e1 and e2 rise steeply after the first hundred epochs while training curves go on falling; both curves of e3 stay together."}}
figure = plots.learning_curves(
    {
        f"{m} bits, {titles[depth]}": {encoder: stored[m, depth, encoder][0].curve for encoder in text.ENCODERS}
        for m in (8, 16, 64)
        for depth in (0, 2)
    },
    stored[8, 0, "e1"][0].config["epochs"],
)
plt.show()

# %% [markdown]
# ### DisARM for ARM, held-out documents for the test set
#
# Linear decoder, the training of the table but for one option. One run for each, ARM from three seeds; means over seeds, with a standard deviation from three on.
#
# - *held out*: so many training documents are set aside and select the epoch.
# - *test*: the lowest over the epochs; *selected*: test documents at the epoch that the held-out ones select.
# - *idle*: bits that tell less than a tenth of a nat of the training documents.
#
# From 16 bits on the machine differs too: DisARM and the runs with documents set aside ran on a CPU in float32, the others on a GPU with products in bfloat16.


# %% tags=["hide-input"]
def number(found: list[float], form: str) -> str:
    """The mean of some values, or a dash."""
    return format(statistics.fmean(found), form) if found else "–".rjust(int(form.partition(".")[0]))


def of(bits: int, encoder: str, estimator: str, aside: int) -> list[records.Record]:
    """Records of a linear decoder with the training of the table but for an estimator and documents set aside."""
    options = {"estimator": estimator, "held_out": aside}
    return records.load(text.STEM, **(text_table.settings((bits, 0, encoder)) | options))


print("bits encoder estimator held out seeds        train         test selected idle")
for bits, encoder in itertools.product(text_table.BITS, text.ENCODERS):
    ways = [(way, of(bits, encoder, *way)) for way in (("arm", 0), ("disarm", 0), ("arm", 1000))]
    if not any(found for _, found in ways[1:]):
        continue
    for (estimator, aside), found in ways:
        if found:
            told = []
            for name in ("nelbo_train", "nelbo_test"):
                mean, spread = text_table.mean_and_spread(text_table.values(found, name))
                told.append(f"{mean:6.1f}" + ("      " if spread is None else f" ± {spread:3.1f}"))
            selected = number(text_table.values(found, "nelbo_test_held_out"), "6.1f")
            idle = statistics.fmean(text_table.values(found, "idle_bits_train"))
            row = f"{bits:4} {encoder:>7} {estimator:>9} {aside:8} {len(found):5} {told[0]} {told[1]}"
            print(f"{row}   {selected} {idle:4.1f}")
            for run in found if aside else ():  # what it costs not to select by the test set
                assert run.metrics["nelbo_test_held_out"] >= run.metrics["nelbo_test"]
            if estimator == "disarm":  # in training it ends below each run with ARM, on test not with e1 and few bits
                of_arm = stored[bits, 0, encoder]
                values = {
                    name: [text_table.values(some, f"nelbo_{name}") for some in (found, of_arm)]
                    for name in ("train", "test")
                }
                assert max(values["train"][0]) < min(values["train"][1])
                ahead = {name: statistics.fmean(v[1]) - statistics.fmean(v[0]) for name, v in values.items()}
                assert ahead["train"] > 2
                assert abs(ahead["test"]) < 1 if (encoder, bits) in {("e1", 8), ("e1", 16)} else ahead["test"] > 1
                if (encoder, bits) == ("e1", 64):  # the replication: 392 to 387; and a bit is idle no more
                    arm, disarm = (statistics.fmean(v) for v in reversed(values["test"]))
                    assert (round(arm, 1), round(disarm, 1)) == (391.9, 386.5)
                    assert max(text_table.values(found, "idle_bits_train")) == 0
                    assert max(text_table.values(found, "epoch_test")) < min(text_table.values(of_arm, "epoch_test"))

# %% [markdown]
# Each run with documents set aside, those behind a hidden layer with one pair of codes and for 300 epochs only: the lowest test value comes long before.
#
# - *test*: the lowest, at the epoch beside it. *selected*: test documents at the epoch that the held-out ones select. *more*: the difference.
# - *cross*: each half of the test documents at the epoch that the other half selects, less the lowest.

# %% tags=["hide-input"]
print("bits hid encoder epochs    test  epoch   selected  epoch    more  cross")
costs = {}
for run in sorted(
    records.load(text.STEM, held_out=1000), key=lambda r: (r.config["d_hidden"], r.config["encoder"], r.config["bits"])
):
    c, m = run.config, run.metrics
    cost = m["nelbo_test_held_out"] - m["nelbo_test"]
    costs[c["bits"], c["d_hidden"], c["encoder"]] = cost
    print(
        f"{c['bits']:4} {c['d_hidden']:3} {c['encoder']:>7} {c['epochs'] + c['epochs_many']:6}  {m['nelbo_test']:6.1f}"
        f"  {m['epoch_test']:5.0f}     {m['nelbo_test_held_out']:6.1f}  {m['epoch_held_out']:5.0f}  {cost:6.1f}"
        f"  {m['nelbo_test_cross'] - m['nelbo_test']:5.1f}"
    )
    assert c["epochs_many"] or m["epoch_test"] < c["epochs"] / 2
assert all(0 <= cost < 0.6 for (bits, depth, _), cost in costs.items() if not depth and bits <= 16)
assert round(costs[64, 0, "e1"], 1) == 1.2
(wide,) = records.load(text.STEM, held_out=1000, bits=64, d_hidden=0, encoder="e1")
assert (wide.metrics["epoch_held_out"], wide.metrics["epoch_test"]) == (394, 239)
assert 3.4 < costs[16, 1, "e1"] < 3.5

# %% [markdown]
# ## The paper's conclusions
#
# Each as differences of two cells, paired by seed.
#
# - *holds*: the mean difference is negative; *fails*: it is positive, by however little.
# - *undecided*: the seeds, two or three, have different signs. Equal signs are no test: two seeds share theirs by chance every other time, three every fourth.
# - *by t*: a t test of the paired differences, two-sided at 5 % and not corrected for the number of pairs, tells the mean from zero; with two seeds that takes 12.7 standard errors.
#
# The printed numbers are rounded to whole nats. Of the KL terms most differences are a few tenths of a nat, in either direction.

# %% tags=["hide-input"]
compared = {claim.name: text_claims.compare(claim, stored, paper) for claim in text_claims.CLAIMS.values()}
for name, pairs in compared.items():
    by_paper, by_us = text_claims.summary(pairs)
    print(name)
    print(f"  paper   {by_paper}")
    print(f"  ours    {by_us}")
by_claim = {key: compared[claim.name] for key, claim in text_claims.CLAIMS.items()}
against = {key: [c for c in pairs if c.ours >= 0] for key, pairs in by_claim.items()}
assert [len(against[key]) for key in ("e1-e2", "e2-e3", "linear", "overfit")] == [0, 3, 1, 0]
assert all(c.of == "test" and c.first[1] == 1 and c.alike for c in against["e2-e3"])  # behind one hidden layer
assert all(c.alike for key in ("e1-e2", "overfit") for c in by_claim[key])
by_t = {key: sum(c.decided for c in pairs) for key, pairs in by_claim.items()}
assert by_t == {"e1-e2": 23, "e2-e3": 17, "linear": 5, "overfit": 11, "collapse": 10}
by_both = {
    key: [sum(c.decided for c in pairs if c.verdict == v) for v in ("holds", "fails")]
    for key, pairs in by_claim.items()
}
assert by_both["e2-e3"] == [15, 2]
assert by_both["collapse"] == [4, 6]
of_e3 = [(c.first[0], *c.second[:2], c.verdict) for c in by_claim["collapse"] if c.first[2] == "e3" and c.decided]
assert sum(verdict == "fails" for *_, verdict in of_e3) == 4
assert any(32 in told and 2 in told[1:] and "fails" in told for told in of_e3)
assert [sum(c.verdict == v for c in by_claim["collapse"]) for v in ("holds", "fails", "undecided")] == [9, 11, 4]
on_test = [c for c in by_claim["e1-e2"] if c.of == "test"]
print(f"e1 − e2 on test, mean over 12 pairs: ours {statistics.fmean(c.ours for c in on_test):.1f},", end=" ")
print(f"printed {statistics.fmean(c.paper for c in on_test):.1f}")
for split in text_table.SPLITS:
    one, two = (statistics.fmean(text_table.values(of(8, e, "disarm", 0), f"nelbo_{split}")) for e in ("e1", "e2"))
    by_arm = next(c.ours for c in by_claim["e1-e2"] if (c.of, c.first) == (split, (8, 0, "e1")))
    print(f"8 bits, linear, {split}: e1 − e2 {by_arm:.1f} with ARM, {one - two:.1f} with DisARM")
    assert by_arm < one - two < 0
assert statistics.median(abs(c.ours) for c in by_claim["collapse"]) < 0.5
undecided = [(c.of, c.first, c.second) for key in ("e2-e3", "linear") for c in by_claim[key] if not c.alike]
assert undecided == [("test", (16, 2, "e2"), (16, 2, "e3")), ("test", (32, 0, "e3"), (32, 1, "e3"))]
assert [c.second for c in against["linear"]] == [(32, 1, "e3")]
assert sum(c.ours > -1 for c in by_claim["linear"]) == 2
crossed = {cell: statistics.fmean(text_table.values(some, "nelbo_test_cross")) for cell, some in stored.items()}
by_cross = [c.second for c in by_claim["linear"] if crossed[c.first] >= crossed[c.second]]
assert not by_cross  # the one that fails holds there, by 0.4
one, two = (text_table.values(stored[32, depth, "e3"], "nelbo_test_cross") for depth in (0, 1))
by_seed = [a - b for a, b in zip(one, two, strict=True)]
print(f"32 bits, e3, linear less one layer, cross values by seed: {', '.join(f'{d:+.1f}' for d in by_seed)}")
assert sum(difference < -0.1 for difference in by_seed) == 1
behind = [
    a.metrics["nelbo_test_cross"] - b.metrics["nelbo_test_cross"]
    for c in against["e2-e3"]
    for a, b in zip(stored[c.first], stored[c.second], strict=True)
]
print(f"e2 − e3 where e2 is above, by cross values: above in {sum(d > 0 for d in behind)} of {len(behind)} runs")
assert (sum(difference > 0 for difference in behind), len(behind)) == (7, 9)

# %%
for name, pairs in compared.items():
    print(name)
    print(text_claims.told(pairs))
    print()

# %% [markdown]
# (own-text-early)=
# ### Hidden layers: early epochs, collapse
#
# {ref}`What it says <own-text-deep>`. Means over seeds:
#
# - *epoch*: the one with the lowest test NELBO; *test rises*: by how much, until after the last one.
# - *train lower*: by how much the training NELBO is below that with the linear decoder of the same bits and encoder.
# - *KL*: on test, at that epoch and after the last one.
# - *told*, *idle*: what the bits tell of the test documents ({eq}`own-bit-information`), and those that tell less than a tenth of a nat, of the model at that epoch; of the idle ones also the fewest and the most of a run.

# %% tags=["hide-input"]
print("bits encoder layers  epoch  test rises  train lower  KL there, last  told  idle  runs")
idle_runs = {cell: text_table.values(found, "idle_bits_test") for cell, found in stored.items()}
assert {extreme(idle_runs[64, d, "e2"]) for extreme, d in itertools.product((min, max), (1, 2))} >= {3, 11}
assert all(3 <= idle <= 11 for d in (1, 2) for idle in idle_runs[64, d, "e2"])
change: dict[str, list[float]] = {encoder: [] for encoder in text.ENCODERS}
for m, encoder, depth in itertools.product(text_table.BITS, text.ENCODERS, text_table.DEPTHS):
    linear = {record.config["seed"]: record for record in stored[m, 0, encoder]}
    lines = []
    for record in stored[m, depth, encoder]:
        if record.config["seed"] not in linear:
            continue
        found, beside = record.metrics, linear[record.config["seed"]]
        rise = found["nelbo_test_last"] - found["nelbo_test"]
        gain = beside.metrics["nelbo_train"] - found["nelbo_train"]
        kl = record.curve["kl_test"][-1]
        told = found["bit_information_test"], found["idle_bits_test"], kl - beside.curve["kl_test"][-1]
        lines.append((found["epoch_test"], rise, gain, found["kl_test"], kl, *told))
        if depth and encoder != "e3":
            assert found["epoch_test"] < 250
            assert min(rise, gain) > 10
            assert rise > 100 or (m, depth, encoder) not in {row.cell for row in misses} or m == 8
        if depth and encoder == "e3":
            assert found["epoch_test"] > 1400
            assert rise < 2
            for split in ("train", "test"):  # still falling, in both
                curve = record.curve[f"nelbo_{split}"]
                tenth = len(curve) // 10
                assert statistics.median(curve[-tenth:]) < statistics.median(curve[-2 * tenth : -tenth]) - 1
    *shown, differs = map(statistics.fmean, zip(*lines, strict=True))
    print(
        f"{m:4} {encoder:>7} {depth:6} " + "{:6.0f} {:11.1f} {:12.1f} {:9.2f} {:6.2f} {:5.2f} {:5.1f}".format(*shown),
        end="",
    )
    print("  {:.0f}-{:.0f}".format(*(extreme(idle_runs[m, depth, encoder]) for extreme in (min, max))))
    if depth:
        change[encoder].append(differs)
        less_told = statistics.fmean(
            linear[r.config["seed"]].metrics["bit_information_test"] - r.metrics["bit_information_test"]
            for r in stored[m, depth, encoder]
            if r.config["seed"] in linear
        )
        if encoder == "e3":
            print(f"{'':18} against the linear decoder, paired: KL {differs:+.2f}, told {-less_told:+.2f}")
        if encoder == "e3" and (m < 32 or depth == 2):
            assert less_told < -0.2 if m < 32 else abs(less_told - {32: 0.4, 64: 0.8}[m]) < 0.05
            assert 0.35 < -differs < 0.3 * statistics.fmean(r.curve["kl_test"][-1] for r in linear.values())
print("KL after the last epoch, hidden layers less linear decoder:")
for encoder, values in change.items():
    print(
        f"  {encoder}: {min(values):+.1f} to {max(values):+.1f}, smaller in {sum(v < 0 for v in values)} of {len(values)}"
    )
    assert -2 < min(values) < max(values) < 2.2
    short = values[: 2 * text_table.BITS.index(64)]  # with fewer than 64 bits
    assert max(map(abs, short)) < (1.5 if encoder == "e3" else 0.35)
    assert encoder != "e3" or sum(v < 0 for v in values) == 6

# %% [markdown]
# ## What the table does not show
#
# Of the stored runs, test documents; numbers are means over seeds. A dash: not computed.
#
# *gap*, *family*, *amortization*: the gap between likelihood and ELBO with its two parts.
#
# - With 8 and 16 bits by enumeration. At 16 bits the gap is of all documents and its parts of 500 of them, so that the sum is another; the amortization part has its standard error then.
# - For longer codes (~) estimated on 200 documents by annealed importance sampling, the family part by posteriors that are fitted to each document. The standard error is that of the mean of one run, here averaged over seeds: from a quarter of a nat to six, and with heavy tails too small.
#
# *affine*, *own*: two distances from a consistent model, both the root mean square of what the best affine function of the code leaves of $\log p(x \mid z)$, in nats.
#
# - *affine* {eq}`own-text-affine` is over the codes that the encoder uses for any document. Most of them are next to impossible for the one at hand, and there the two may differ by tens of nats at no cost to the gap.
# - *own* is over the codes of the document's own posterior. To second order half of its square is the family part; how many times that the family part of the stored runs is, stands below.
#
# *precision*: share of the query's newsgroup among the 100 nearest training documents, of the model at the epoch that the test NELBO selects, so by documents that are queries here; *median*: the same with each bit cut at its median over the training documents.


# %% tags=["hide-input"]
print("bits layers encoder      gap       family  amortization affine    own  precision  median")
for (m, depth, encoder), found in stored.items():
    if found:
        gaps = [text_table.values(found, f"{metric}_test") for metric in ("gap", "gap_family", "gap_amortization")]
        exact = bool(gaps[0])
        if not exact:
            whole, fitted = (text_table.values(found, f"{metric}_ais_test") for metric in ("gap", "gap_fitted"))
            gaps = [whole, fitted, [a - b for a, b in zip(whole, fitted, strict=False)]]
        others = (
            "distance_documents_test",
            "distance_posterior_test",
            "precision_at_100",
            "precision_at_100_median",
        )
        forms = ("6.1f", "6.2f", "10.3f", "7.3f")
        shown = [number(values, "6.2f" if exact else "6.1f") for values in gaps]
        errors = [value for value in text_table.values(found, "gap_amortization_se_test") if value > 0]
        shown[2] += f" ± {statistics.fmean(errors):4.2f}" if errors else " " * 7
        sampled = text_table.values(found, "gap_ais_se_test")
        shown[0] += f" ± {statistics.fmean(sampled):3.1f}" if sampled and not exact else " " * 6
        shown += [number(text_table.values(found, name), form) for name, form in zip(others, forms, strict=True)]
        sign = " " if exact else "~"
        print(f"{m:4} {depth:6} {encoder:>7} {sign} " + " ".join(shown))
second_order = sorted(
    r.metrics["gap_family_test"] / (r.metrics["distance_posterior_test"] ** 2 / 2)
    for r in records.load(text.STEM, **SIZE)
    if None not in (r.metrics.get("gap_family_test"), r.metrics.get("distance_posterior_test"))
)
print(f"family part over half of own²: median {statistics.median(second_order):.1f} of {len(second_order)} runs,")
print(f"from {second_order[0]:.1f} to {second_order[-1]:.1f}: the expansion tells the order of magnitude")
assert 1 < statistics.median(second_order) < 5
gap_of = {
    cell: statistics.fmean(text_table.values(found, "gap_test") or text_table.values(found, "gap_ais_test"))
    for cell, found in stored.items()
    if found
}
for deep, kind, bounds in ((False, "a linear decoder", (2, 19)), (True, "hidden layers", (11, 28))):
    gaps = [gap for (m, depth, _), gap in gap_of.items() if m <= 16 and (depth > 0) == deep]
    print(f"gap with 8 and 16 bits behind {kind}: {min(gaps):.1f} to {max(gaps):.1f}")
    assert bounds[0] - 0.5 < min(gaps) < max(gaps) < bounds[1] + 0.5
larger = {
    (m, encoder): all(gap_of[m, depth, encoder] > gap_of[m, 0, encoder] for depth in (1, 2))
    for m, encoder in itertools.product(text_table.BITS, text.ENCODERS)
}
not_larger = ", ".join(f"{encoder} with {m}" for (m, encoder), is_so in larger.items() if not is_so)
print(f"larger behind one layer and two than behind none, but for\n  {not_larger} bits")
assert gap_of[32, 1, "e3"] > gap_of[32, 0, "e3"] > gap_of[32, 2, "e3"]
assert all(gap_of[64, depth, encoder] < gap_of[64, 0, encoder] for depth in (1, 2) for encoder in ("e2", "e3"))
assert {key for key, is_so in larger.items() if not is_so} == {(32, "e3"), (64, "e2"), (64, "e3")}
for record in records.load(text_words.STEM):
    for label, metric in (("raw counts", "counts"), ("tf-idf", "tf_idf")):
        print(f"precision of the words, {label:13} {record.metrics[f'precision_at_100_{metric}']:.3f}")
    print(f"precision of a random order           {record.metrics['precision_chance']:.3f}")

# %% [markdown]
# (own-text-log-likelihood)=
# ### The log-likelihood itself
#
# Of the same runs and models, nats a document, means over seeds. $-L$: the negative log-likelihood relative to the saturated multinomial, *base*: with the base measure.
# Up to 16 bits it is exact, and so is the gap on training documents, which {eq}`eq-2` is about; its two parts are of 500 documents with 16 bits.
# For longer codes (~) $-L$ is the NELBO of all test documents less the gap of 200 of them, with the standard error of that gap.
# Their likelihood is estimated twice, by annealing and by importance weights from a fitted posterior; both are too small on average, so that the larger one is nearer. *AIS − IW*: how they differ on the same documents, with the Monte Carlo error of both.

# %% tags=["hide-input"]
shown_of_likelihood = [
    f"{what}_{split}" for split in text_table.SPLITS for what in ("log_likelihood", "base_measure_floor")
]
shown_of_likelihood += [f"gap{part}_train" for part in ("", "_family", "_amortization")]
print("                           train                                 test")
print("bits layers encoder      −L   base   gap  family  amort.      −L   base")
for (m, depth, encoder), found in stored.items():
    if text_table.values(found, "log_likelihood_test"):
        of = {name: statistics.fmean(text_table.values(found, name)) for name in shown_of_likelihood}
        gap = f"{of['gap_train']:5.1f} {of['gap_family_train']:7.2f} {of['gap_amortization_train']:7.2f}"
        low = {split: -of[f"log_likelihood_{split}"] for split in text_table.SPLITS}
        both = {split: f"{nats:7.1f} {nats + of[f'base_measure_floor_{split}']:6.1f}" for split, nats in low.items()}
        print(f"{m:4} {depth:6} {encoder:>7} {both['train']} {gap} {both['test']}")
        assert of["gap_train"] > 0
print("                           test ~")
print("bits layers encoder      −L          base     AIS − IW")
ahead_of_ais, estimated = [], {}
for (m, depth, encoder), found in stored.items():
    if text_table.values(found, "log_likelihood_test"):
        continue
    names = ("nelbo_test", "gap_ais_test", "gap_ais_se_test", "base_measure_floor_test")
    nelbo, gap, error, floor = (statistics.fmean(text_table.values(found, name)) for name in names)
    twice = []
    for run in found:
        ais, iw = (run.metrics[f"log_likelihood_{of}_test"] for of in ("ais", "iw"))
        both = math.hypot(*(run.metrics[f"log_likelihood_{of}_se_test"] for of in ("ais", "iw")))
        twice.append((ais - iw, both))
    ahead_of_ais += [(-more, both) for more, both in twice]
    more, both = (statistics.fmean(column) for column in zip(*twice, strict=True))
    estimated[m, depth, encoder] = gap - nelbo, error
    line = f"{nelbo - gap:7.1f} ± {error:3.1f} {nelbo - gap + floor:6.1f}   {more:+5.2f} ± {both:4.2f}"
    print(f"{m:4} {depth:6} {encoder:>7} {line}")
first = sum(more > 0 for more, _ in ahead_of_ais)
clearly = sum(more > 2 * error for more, error in ahead_of_ais), sum(-more > 2 * error for more, error in ahead_of_ais)
most = max(more for more, _ in ahead_of_ais)
print(f"importance weights give more in {first} of {len(ahead_of_ais)} runs, by {most:.2f} at most;")
print(f"by two errors in {clearly[0]}, and annealing in {clearly[1]}")
assert most < 0.4  # what the gap of annealing above may lack by that
over_none = {
    m: [estimated[m, d, e][0] - estimated[m, 0, e][0] for d, e in itertools.product((1, 2), text.ENCODERS)]
    for m in (32, 64)
}
for m, differences in over_none.items():
    print(f"{m} bits, layers less none (e1 e2 e3, one and two): " + " ".join(f"{v:+.1f}" for v in differences))
assert 9 < over_none[32][0] < 11 > 6 > over_none[32][3] > 4
assert over_none[64][0] > 0
assert all(-13 < more < -3 for more in over_none[64][1:])
assert all(0.9 < error < 6.1 for _, error in estimated.values())
print("test, one and two hidden layers less none: log-likelihood, and what of it the ELBO has")
shares = []
for m, encoder in itertools.product((8, 16), text.ENCODERS):
    worth = {
        depth: [
            statistics.fmean(text_table.values(stored[m, depth, encoder], n))
            for n in ("log_likelihood_test", "elbo_test")
        ]
        for depth in text_table.DEPTHS
    }
    more = [[deep - linear for deep, linear in zip(worth[depth], worth[0], strict=True)] for depth in (1, 2)]
    shares += [elbo / likelihood for likelihood, elbo in more]
    print(f"{m:4} bits {encoder}  " + "     ".join(f"{likelihood:+5.1f} {elbo:+5.1f}" for likelihood, elbo in more))
    assert all(4 < likelihood < 22 for likelihood, _ in more)
print(f"so between {min(shares):.0%} and {max(shares):.0%} of it")
assert -0.15 < min(shares) < 0 < max(shares) < 0.5

# %% mystnb={"figure": {"name": "own-text-precision", "caption": "Stored runs, linear decoder: share of the query's newsgroup among the 100 nearest training documents by Hamming distance, bits by thresholding probabilities at one half, the model at the epoch that the test NELBO selects. Points: means over three seeds; ticks: single seeds. Lines across: search by the words themselves."}, "image": {"alt": "Precision against the number of bits for the encoders, rising for all, e1 highest, with lines for the words: tf-idf near 0.4, raw counts near 0.1."}}
(of_words,) = records.load(text_words.STEM, words=10000, k=100)
names = {
    "tf-idf": "precision_at_100_tf_idf",
    "raw counts": "precision_at_100_counts",
    "random order": "precision_chance",
}
found_again = {
    encoder: {m: text_table.values(stored[m, 0, encoder], "precision_at_100") for m in text_table.BITS}
    for encoder in text.ENCODERS
}
figure = precision(found_again, {label: of_words.metrics[metric] for label, metric in names.items()})
plt.show()
print("precision, linear decoder less the better of one and two hidden layers")
for encoder in text.ENCODERS:
    of_depths = {
        (m, depth): text_table.values(stored[m, depth, encoder], "precision_at_100")
        for m, depth in itertools.product(text_table.BITS, text_table.DEPTHS)
    }
    less = [
        statistics.fmean(of_depths[m, 0]) - max(statistics.fmean(of_depths[m, depth]) for depth in (1, 2))
        for m in text_table.BITS
    ]
    print(f"  {encoder}  " + ", ".join(f"{m} bits {v:+.3f}" for m, v in zip(text_table.BITS, less, strict=True)))
    assert min(less[2:]) > 0.02  # 32 and 64 bits
    for m, depth in itertools.product((32, 64), (1, 2)):  # with each seed
        assert min(of_depths[m, 0]) > max(of_depths[m, depth])
    assert all(statistics.fmean(of_depths[8, 0]) < statistics.fmean(of_depths[8, depth]) for depth in (1, 2))
by_tf_idf = of_words.metrics["precision_at_100_tf_idf"]
better = {
    (m, e) for e in text.ENCODERS for m in text_table.BITS if statistics.fmean(found_again[e][m] or [0]) > by_tf_idf
}
by_each = {(m, e) for e in text.ENCODERS for m in text_table.BITS if min(found_again[e][m], default=0) > by_tf_idf}
print(f"better than tf-idf with each seed: {sorted(by_each)}")
print(f"in the mean only, or level: {sorted(better - by_each | {(16, 'e1')})}")
assert by_each == {(32, "e1"), (64, "e1")}
assert better - by_each - {(16, "e1")} == {(64, "e2")}
assert abs(statistics.fmean(found_again["e1"][16]) - by_tf_idf) < 0.002
for m in text_table.BITS:  # counts before frequencies, with each seed
    of_seed = [
        {record.config["seed"]: record.metrics["precision_at_100"] for record in stored[m, 0, encoder]}
        for encoder in text.ENCODERS
    ]
    assert all(one[seed] > two[seed] for one, two in itertools.pairwise(of_seed) for seed in set(one) & set(two))

# %% [markdown]
# ### Against a decoder fitted without an encoder
#
# No training NELBO of a linear decoder can be lower than the negative log-likelihood of the best one with as many bits, under uniform bits. That one is fitted by its exact likelihood, without an encoder, and a run comes near it from above ({ref}`list of the runs <sec-4-3-optima-lab>`).
#
# So the NELBO of a stored run with a linear decoder is made of three parts:
#
# - what is left when this decoder is fitted by its likelihood;
# - the likelihood that the training with an encoder loses against that, the approximation error {eq}`eq-2` and whatever the optimiser left undone;
# - the gap.
#
# The figure has this on test documents, of the model that is best there. {eq}`eq-2` is about the law that is trained on: beside it stands what the exact ELBO of that model lacks on training documents to the
# direct fit of these, lost likelihood and gap together.

# %% mystnb={"figure": {"name": "own-text-lost", "caption": "Stored runs on 20 Newsgroups, test documents, linear decoder, as far as there are both a run with an encoder and a direct fit under uniform bits: what the ELBO lacks to the log-likelihood of the direct fit. With 8 bits the gap is exact, with 16 its parts are of 500 documents."}, "image": {"alt": "Stacked bars for the encoders, one panel for 8 bits and one for 16. The likelihood lost against the direct fit is the larger part, the gap the smaller one, but for e3 with 16 bits. Nearly all of the gap is amortization."}}
direct = text_table.direct_fits(records.load(text_rbm.STEM))
lost: dict[str, dict] = {}
for (m, depth, encoder), found in stored.items():
    fits = direct.get(("uniform", m), [])
    likelihood, *gap = (
        text_table.values(found, metric)
        for metric in ("log_likelihood_test", "gap_family_test", "gap_amortization_test")
    )
    if depth == 0 and fits and likelihood:
        title = f"{m} bits"
        stack = lost.setdefault(title, {})[encoder] = {
            "log-likelihood lost to the direct fit": -statistics.fmean(likelihood)
            - min(text_table.values(fits, "nll_test")),
            "gap, family part": statistics.fmean(gap[0]),
            "gap, amortization part": statistics.fmean(gap[1]),
        }
        both = -statistics.fmean(text_table.values(found, "elbo_train")) - min(text_table.values(fits, "nll_train"))
        shown = ", ".join(
            f"{part} {nats:.1f}" for part, nats in zip(("lost", "family", "amort."), stack.values(), strict=True)
        )
        print(f"{title}, {encoder}: test {shown}; train, both {both:.1f}")
        if title == "8 bits":
            likelihood_lost, family, amortization = stack.values()
            assert likelihood_lost > family + amortization
            assert likelihood_lost > 10
            assert family < 0.1 * amortization
            assert 1.55 < both / (likelihood_lost + family + amortization) < 1.7
print("log-likelihood on test, one and two layers less the best linear direct fit")
over_linear: dict[str, list[float]] = {}
for encoder in text.ENCODERS:
    over_linear[encoder] = [
        statistics.fmean(text_table.values(stored[m, depth, encoder], "log_likelihood_test"))
        + min(text_table.values(direct["uniform", m], "nll_test"))
        for m, depth in itertools.product((8, 16), (1, 2))
    ]
    print(f"  {encoder}: 8 bits {'{:+.1f} {:+.1f}, 16 bits {:+.1f} {:+.1f}'.format(*over_linear[encoder])}")
assert [round(more, 1) for more in over_linear["e1"]] == [9.5, 8.1, 11.0, 10.0]
assert [round(more, 1) for more in over_linear["e2"]] == [-7.7, -4.6, -6.0, -6.1]
assert [round(more, 1) for more in over_linear["e3"]] == [6.9, -0.1, 3.2, -5.8]
for split, (least, most) in {"train": (0.45, 0.55), "test": (0.6, 0.8)}.items():  # of e3 less e1: the part that is gap
    gap, elbo = (
        statistics.fmean(text_table.values(stored[8, 0, "e3"], name))
        - statistics.fmean(text_table.values(stored[8, 0, "e1"], name))
        for name in (f"gap_{split}", f"elbo_{split}")
    )
    print(f"8 bits, {split}: e3 less e1: ELBO {elbo:.1f}, gap {gap:+.1f}")
    assert least < gap / -elbo < most
if lost:
    figure = plots.parts(lost, "nats a document")
    plt.show()

# %% [markdown]
# ## How fast
#
# Stored figures of `python -m benchmarks.text_epoch`: one epoch with 64 bits, $e_1$ and DisARM, on 20 Newsgroups, beside the usual way to write it (dense counts, a DataLoader, `log_softmax`, autograd), interleaved in one
# process, medians. In brackets the lowest and the highest ratio of a round, which differ by what others do on the machine: the usual way waits for memory in any case, ours for the cores and their caches. With one pair and a linear decoder shorter sets of rounds gave between half of that ratio and the same: others were busy, or the usual way got its memory from the system with fewer page faults.
#
# - *depth-0*, *-1*, *-2*: the number of hidden layers of the decoder; so in the other parts. *depth-0-ten*: with ten pairs of codes for each document, as in the last third of the paper's epochs.
# - *by products*: a linear decoder without {ref}`compiled loops <own-tabulated-products>`.
# - The precision is that of the products of matrices. A linear decoder has its loops, always in float32, in place of them, so that there it only concerns *by products*.
# - *floor*: the least operations and the optimiser's memory traffic alone, at the rates of the same machine.
# - *together*: four cells over one pass of the documents, in seconds and as a share of one after the other, in the median and in the lowest and highest round.
# - *quality*: test NELBO after 30 epochs in both ways, 3 seeds, and the difference over its standard error.

# %%
epochs = {}
for record in records.load("benchmark_text_epoch"):
    c, m = record.config, record.metrics
    print(f"{c['part']}, {c['threads']} threads, {c['precision']}, {record.provenance['cpu']}")
    if "ratio" in m:
        epochs[c["precision"], c["part"]] = m
        print(f"  usual {m['seconds_usual']:.2f} s, ours {m['seconds_fast']:.2f} s, floor {m['seconds_floor']:.2f} s")
        spread = f" ({m['ratio_low']:.1f} to {m['ratio_high']:.1f})" if "ratio_low" in m else ""
        print(f"  {m['ratio']:.1f}{spread} times as fast as the usual way, {m['fast_over_floor']:.1f} times the floor")
        if "ratio_products" in m:
            print(f"  by products {m['seconds_products']:.2f} s, {m['ratio_products']:.1f} times ours")
    elif "together_over_alone" in m:
        share = f"{m['together_over_alone']:.2f} ({m['share_low']:.2f} to {m['share_high']:.2f})"
        print(f"  together {m['seconds_together']:.2f} s, {share} of one after the other")
        assert 0.94 < m["together_over_alone"] < 0.98
    else:
        print(f"  usual {m['nelbo_usual']:.1f}, ours {m['nelbo_fast']:.1f}, difference / standard error {m['z']:+.1f}")
        assert abs(m["z"]) < 2
assert 7 < epochs["bfloat16", "depth-0"]["ratio"] < 8
for part in ("depth-1", "depth-2"):
    assert 1.8 < epochs["bfloat16", part]["ratio"] < 2.1
    assert 1.3 < epochs["bfloat16", part]["fast_over_floor"] < 1.45

print("\nmean epoch of the protocol, 1000 with one pair and 500 with ten, linear decoder")
for rounded in sorted({key for key, part in epochs if part == "depth-0-ten"}):
    one, ten = (epochs[rounded, part] for part in ("depth-0", "depth-0-ten"))
    keys = ("seconds_usual", "seconds_fast", "seconds_products")
    usual, ours, products = ((2 * one[key] + ten[key]) / 3 for key in keys)
    print(f"  usual {usual:.1f} s, ours {ours:.2f} s: {usual / ours:.1f} times as fast")
    print(f"  by products in {rounded} {products:.2f} s, {products / ours:.1f} times ours")

# %% [markdown]
# The search by codes that are packed into 64-bit words, one thread: the hundred nearest of as many codes as there are training documents, for 64 queries together
# (`python -m benchmarks.retrieval`; random codes, what they say hardly matters for the time).

# %%
for record in records.load("benchmark_retrieval"):
    c, m = record.config, record.metrics
    print(f"{c['bits']} bits, {c['documents']} documents, {record.provenance['cpu']}")
    for label, way in (
        ("packed codes", "packed"),
        ("packed codes, one query at a time", "packed_alone"),
        ("product of codes in float32", "float"),
        ("product in float32, one at a time", "float_alone"),
        ("cosine of the word counts", "words"),
    ):
        print(f"  {label:35} {m[f'us_{way}']:6.1f} µs a query")

# %% [markdown]
# One step with ten pairs of codes for each document, 16 bits and a linear decoder (`python -m benchmarks.text_listed`):
#
# - *products*, *loops*: each code by itself, by products of matrices and by {ref}`compiled loops <own-tabulated-products>`;
# - *table*: from the table of all codes ({eq}`own-partition-table`);
# - *exact*: the exact expectation from that table.

# %%
for record in records.load("benchmark_text_listed"):
    c, m = record.config, record.metrics
    print(f"{c['bits']} bits, {c['pairs']} pairs, {c['threads']} thread, {record.provenance['cpu']}")
    for way in ("products", "loops", "table", "exact"):
        if f"milliseconds_{way}" in m:
            times = f"  {m[f'ratio_{way}']:.1f} times as fast" if way != "products" else ""
            print(f"  {way:11} {m[f'milliseconds_{way}']:5.0f} ms{times}")

# %% [markdown]
# One step of an encoder that is nearly sure, ARM on a CPU (`python -m benchmarks.text_distinct`): each of the codes drawn, or the different ones of a document once. The encoder is a random $e_2$, scaled up to an entropy. Below, the entropy of trained ones, $m \log 2$ less the KL term on test documents, in the epochs with ten pairs.

# %%
print("bits entropy layers pairs  different codes   all      once  times as fast")
for record in sorted(records.load("benchmark_text_distinct"), key=lambda r: (r.config["entropy"], r.config["pairs"])):
    c, m = record.config, record.metrics
    print(
        f"{c['bits']:4} {c['entropy']:7} {c['d_hidden']:6} {c['pairs']:5}  {m['codes']:15.1f}  "
        f"{m['milliseconds_all']:4.0f} ms  {m['milliseconds_once']:4.0f} ms  {m['ratio']:5.1f}"
    )
    if c["pairs"] == 10 and c["d_hidden"]:
        low, high = {0.5: (6.5, 7.5), 1.3: (4, 4.5), 4.0: (1.3, 1.5)}[c["entropy"]]
        assert low < m["ratio"] < high
entropies = {}
for (m, _, encoder), found in stored.items():
    for record in found:
        if m > LISTED_BITS:
            curve = zip(record.curve["epoch"], record.curve["kl_test"], strict=True)
            entropies.setdefault((encoder, m), []).extend(
                m * math.log(2) - kl for epoch, kl in curve if epoch > protocol["epochs"]
            )
for (encoder, m), values in sorted(entropies.items()):
    print(f"{encoder}, {m} bits: {min(values):.1f} to {max(values):.1f} nats")
assert max(entropies["e2", 16]) < 0.5 < min(entropies["e2", 32]) < max(entropies["e2", 32]) < 1.9
assert min(entropies["e1", 32]) > 4

# %% [markdown]
# ## What is open
#
# Seeds: a standard deviation needs three. The cells without are trained, or taken up again where they were killed, by one command; records that are there are not computed again. The {doc}`../book/scoreboard` has all that is open of the table, and one sweep for what of it wants a GPU.

# %%
few = [cell for cell, found in stored.items() if len(found) < scoreboard.SEEDS_FOR_SPREAD]
print(f"{len(few)} of {len(stored)} cells have fewer than {scoreboard.SEEDS_FOR_SPREAD} seeds")
print("efvae sweep sec4_3_text --device cuda --together 12 \\")
print("  --grid bits=8,16,32,64 encoder=e1,e2,e3 d_hidden=0,1,2 seed=0,1,2")
