# %% [markdown]
# (sec-5-lab)=
# # Conclusions, in numbers
#
# What {ref}`sec-5` says, from the stored records of the other sections: means over seeds, and standard deviations from three seeds on. Nothing is
# trained here. All quantities are in nats unless another unit is named.

# %% tags=["parameters"]
decimals: int = 3  # in [1, 6]: decimals shown

# %%
import statistics

from efvae import records
from efvae.experiments import artificial, encoder_families, images, rbm, spiral, text
from efvae.text_table import mean_and_spread, settings


def shown(values: list[float], places: int = decimals) -> str:
    """Mean ± standard deviation (number of records)."""
    mean, spread = mean_and_spread(values)
    return f"{mean:.{places}f}" + ("" if spread is None else f" ± {spread:.{places}f}") + f" ({len(values)})"


def column(found: list[records.Record], name: str) -> list[float]:
    """A metric of the records that have it."""
    return [record.metrics[name] for record in found if record.metrics.get(name) is not None]


# %% [markdown]
# ## More statistics, not more layers
#
# Random decoders of Section 3.1 under encoders with more and more statistics: what the best posterior of each family leaves of the gap, as a share of
# what independent bits leave; `states` has one statistic for each code.

# %%
found = records.load_like(encoder_families.STEM, encoder_families.Config())
for family in ("factorized", "mrf", "pairs", "states"):
    share = [r.metrics[f"family_{family}"] / r.metrics["family_factorized"] for r in found]
    print(f"{family:11} {shown(share)}")
    assert statistics.mean(share) < 1e-3 or family != "states"
hidden = [r.metrics["amortization_factorized_hidden"] for r in found]
linear = [r.metrics["amortization_factorized_affine"] for r in found]
print(f"amortization of a factorized encoder, affine   {shown(linear)}")
print(f"                              one hidden layer {shown(hidden)}")
assert statistics.mean(hidden) < statistics.mean(linear)  # a layer mends this part, and this part only

# %% [markdown]
# ## Pulled towards the consistent set
#
# The two experiments where likelihood and gap are integrals. Before: the encoder trained, the decoder at the truth. After: both trained by the ELBO. The likelihood falls, the gap
# shrinks.

# %%
mixture = records.load_like(artificial.STEM, artificial.RECORDED)
curve = records.load_like(spiral.STEM, spiral.RECORDED["gaussian"])
pairs = {
    "four Gaussians": (mixture, ("negative_entropy", "log_likelihood_joint"), ("gap_pretrained", "gap_joint")),
    "spiral": (curve, ("log_likelihood_encoder", "log_likelihood_fixed"), ("gap_encoder", "gap_fixed")),
}
for title, (rows, likelihood, gap) in pairs.items():
    print(title)
    for name, (before, after) in (("log-likelihood", likelihood), ("gap", gap)):
        print(f"  {name:15} before {shown(column(rows, before))}, after {shown(column(rows, after))}")
        assert all(r.metrics[after] < r.metrics[before] for r in rows)

# %% [markdown]
# ## Harm
#
# On the spiral the same in the shape of the decoder: the share of its variance that no affine map of the code explains. A Gaussian VAE whose decoder is affine can be
# tight. With an encoder that has more shapes, a mixture of three Gaussians, the likelihood stays.

# %%
for encoder in ("gaussian", "mixture"):
    rows = records.load_like(spiral.STEM, spiral.RECORDED[encoder])
    bent = " to ".join(shown(column(rows, f"bent_{stage}")) for stage in ("encoder", "fixed"))
    lost = [r.metrics["log_likelihood_encoder"] - r.metrics["log_likelihood_fixed"] for r in rows]
    print(f"{encoder:9} encoder: bent {bent}\n{'':19}likelihood lost {shown(lost)}")

# %% [markdown]
# Images, stored runs on photographs: the ELBO rises by orders of magnitude, and the samples move away from the truth. The Fréchet distance is in the features of
# a classifier trained on these photographs; it is not FID.

# %%
photographs = records.load(
    images.STEM, data="photographs", features="classifier", encoder="diagonal", truth_seed=0, batch_size=64
)
for size, precision in sorted({(r.config["size"], r.config["precision"]) for r in photographs}):
    print(f"{size} px, {precision}")  # each its own truth
    for stage in ("encoder", "joint_fixed", "joint_learned"):
        wanted = {"stage": stage, "size": size, "precision": precision}.items()
        rows = [r for r in photographs if wanted <= r.config.items()]
        for steps, rate in sorted({(r.config["joint_steps"], r.config["joint_rate"]) for r in rows}):
            some = [r for r in rows if (r.config["joint_steps"], r.config["joint_rate"]) == (steps, rate)]
            elbo, frechet = column(some, "elbo"), column(some, "frechet_classifier")
            if elbo and frechet:
                label = stage + ("" if stage == "encoder" else f", {steps} steps, rate {rate:g}")
                print(f"  {label:39} ELBO {shown(elbo, 0):16} distance {shown(frechet, 1)}")

# %% [markdown]
# ## Is an RBM a good baseline?
#
# Binary digits, log-likelihood on test images, five splits of the data: 8 latent bits, and the largest RBM that was trained.

# %%
digits = {
    "RBM": rbm.Config("rbm", learning_rate=0.03),
    "VAE, affine decoder": rbm.Config("vae", decoder="affine", encoder="mlp"),
    "VAE, hidden layer": rbm.Config("vae", decoder="mlp", encoder="mlp"),
    "RBM, 64 bits": rbm.Config("rbm-pcd", latent=64, learning_rate=0.02),
}
test = {name: column(records.load_like(rbm.STEM, c), "log_likelihood_test") for name, c in digits.items()}
for name, values in test.items():
    print(f"{name:20} {shown(values, 2)}")
assert statistics.mean(test["VAE, affine decoder"]) < statistics.mean(test["RBM"])
assert statistics.mean(test["RBM"]) < statistics.mean(test["VAE, hidden layer"])
assert statistics.mean(test["VAE, hidden layer"]) < statistics.mean(test["RBM, 64 bits"])

# %% [markdown]
# ## Codes for search
#
# 20 Newsgroups, linear decoder, stored runs: share of the query's group among the 100 nearest training documents by Hamming distance. Epochs: with one pair of codes,
# with ten. How the runs differ is in {ref}`sec-4-3-lab`.

# %%
protocol = settings((8, 0, "e1"))  # all cells of the table share what is taken of it
SIZE = {
    name: protocol[name]
    for name in ("corpus", "vocabulary", "width", "batch_size", "clip", "activation", "first_weights")
}
runs: dict[tuple, list[records.Record]] = {}
for record in records.load(text.STEM, **SIZE, d_hidden=0, held_out=0):
    c = record.config
    training = f"{c['estimator']}, {c['epochs']}+{c['epochs_many']} epochs, first bias {c['first_bias']}"
    if c["estimator"] == "arm":
        runs.setdefault((training, c["bits"], c["encoder"]), []).append(record)
for training in sorted({key[0] for key in runs}):
    print(training)
    for bits in sorted({key[1] for key in runs if key[0] == training}):
        told = [
            f"{encoder} {shown(column(runs[training, bits, encoder], 'precision_at_100'))}"
            for encoder in text.ENCODERS
            if (training, bits, encoder) in runs
        ]
        print(f"  {bits:2} bits  " + "  ".join(told))

# %% [markdown]
# With exact gradients, the decoder begun at the frequencies of the words, each encoder at the rate that is best for it with 8 bits ({ref}`own-idle-bits`); the NELBO is that on test.

# %%
own: dict[tuple, list[records.Record]] = {}
for record in records.load(
    text.STEM, **SIZE, bits=8, d_hidden=0, estimator="exact", first_bias="frequencies", epochs=100
):
    own.setdefault((record.config["encoder"], record.config["learning_rate"]), []).append(record)
for (encoder, rate), rows in sorted(own.items()):
    if len(rows) >= 3:
        nelbo, precision = column(rows, "nelbo_test"), column(rows, "precision_at_100")
        print(f"{encoder} at {rate:g}: NELBO {shown(nelbo, 1)}, precision {shown(precision)}")
        if encoder != "e2":
            beside = {"encoder": encoder, "learning_rate": rate, "estimator": "exact", "epochs": 100}
            from_random = records.load(text.STEM, **SIZE, bits=8, d_hidden=0, first_bias="random", **beside)
            print(f"  from the random start: precision {shown(column(from_random, 'precision_at_100'))}")
        sixteen = records.load(
            text.STEM, **SIZE, bits=16, d_hidden=0, first_bias="frequencies", encoder=encoder, learning_rate=rate
        )
        print(f"  16 bits at the same rate: precision {shown(column(sixteen, 'precision_at_100'))}")

# %% [markdown]
# What weighs more for the training NELBO of $e_1$, the start or the encoder? With exact gradients and rates as above; and as in Table 2, at its one rate, with one pair of codes for 1000 epochs. In the first case the start does, in the second the encoder.

# %%
rates = {encoder: rate for (encoder, rate), rows in own.items() if len(rows) >= 3}


def lowest(first_bias: str, encoder: str, **keys) -> float:
    """Mean over seeds of the lowest training NELBO in 1000 epochs."""
    rows = records.load(
        text.STEM, **SIZE, bits=8, d_hidden=0, held_out=0, first_bias=first_bias, encoder=encoder, **keys
    )
    curves = [zip(row.curve["epoch"], row.curve["nelbo_train"], strict=True) for row in rows]
    return statistics.mean(min(value for epoch, value in curve if epoch <= 1000) for curve in curves)


exact_rates = {
    encoder: {"estimator": "exact", "epochs": 100, "learning_rate": rates[encoder]} for encoder in ("e1", "e3")
}
table_rate = {key: {"estimator": "arm", "epochs": 1000, "learning_rate": 0.001} for key in ("e1", "e3")}
for name, keys in (("exact gradients, own rates", exact_rates), ("as in Table 2", table_rate)):
    start = lowest("random", "e1", **keys["e1"]) - lowest("frequencies", "e1", **keys["e1"])
    encoder = lowest("frequencies", "e3", **keys["e3"]) - lowest("frequencies", "e1", **keys["e1"])
    print(f"{name:27} the start {start:5.1f}, e3 in place of e1 {encoder:5.1f}")
    assert (start > encoder) == (keys is exact_rates)
