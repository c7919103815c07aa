"""Expected values of a tiny checkpoint, as Hugging Face transformers computes them. Both makers of fixtures,
family_fixtures.py and reader_fixtures.py, write them by this. Needs torch and transformers."""

import json

import torch
import transformers

BEGIN, END = 1, 2  # the last token of every prompt, and the token that ends what is written
VOCAB_SIZE = 61
MAX_NEW_TOKENS = 20
NUM_BEAMS = 4

COMMON = {"vocab_size": VOCAB_SIZE, "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": None}
NUM_FORCED_TOKENS = 30

# Options of generation; `config.json` says the same to Baton.
OUTPUT_RULES = {
    "marian": {"bad_words_ids": [[60]], "renormalize_logits": True},
    "m2m-100": {"forced_bos_token_id": 7},
}


def prompt(index, length):
    """Token ids that are not special, and the begin token."""
    generator = torch.Generator().manual_seed(1000 + index)
    return [*torch.randint(3, VOCAB_SIZE, [length], generator=generator).tolist(), BEGIN]


def generate(model, tokens, num_beams, rules):
    """Outputs of beam search, best first, without the end token; greedy search with one beam."""
    ids = torch.tensor([tokens])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=MAX_NEW_TOKENS,
        pad_token_id=0 if model.config.pad_token_id is None else model.config.pad_token_id,
        **rules,
    )
    num_given = 1 if model.config.is_encoder_decoder else ids.shape[1]
    sequences = []
    for sequence in output[:, num_given:].tolist():
        length = sequence.index(END) if END in sequence else MAX_NEW_TOKENS
        sequences.append(sequence[:length])
    return sequences


def generate_surely(model, exact_model, tokens, num_beams, name):
    rules = OUTPUT_RULES.get(name, {})
    sequences = generate(model, tokens, num_beams, rules)
    if sequences != generate(exact_model, tokens, num_beams, rules):
        raise SystemExit(
            f"a near tie: f32 and f64 differ for {name}, a prompt of {len(tokens)} tokens, {num_beams} beams"
        )
    return sequences


def rounded(values):
    return [float(f"{value:.7g}") for value in values]


def some_positions(states):
    """The first, the middle and the last of `[1, length, d]`."""
    length = states.shape[1]
    return rounded(states[0, [0, length // 2, length - 1]].flatten().tolist())


def decoder_only_prompt(model, exact_model, tokens, name, block):
    """The states after a block, the logits, and what the model writes."""
    states = []
    # The output of a block, not `hidden_states`, whose last entry has gone through the final norm.
    hook = block.register_forward_hook(
        lambda _module, _inputs, output: states.append(output[0] if isinstance(output, tuple) else output)
    )
    logits = model(torch.tensor([tokens])).logits[0]
    hook.remove()
    return {
        "tokens": tokens,
        "hidden_states": some_positions(states[0]),
        "logits": rounded(logits[-1].tolist()),
        "greedy": generate_surely(model, exact_model, tokens, 1, name)[0],
        "beams": generate_surely(model, exact_model, tokens, NUM_BEAMS, name),
    }


def write_expected(directory, made_by, layer, prompts, **more):
    """Writes what the tests compare with, a prompt a line."""
    expected = {
        "made_by": made_by,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "layer": layer,
        "max_new_tokens": MAX_NEW_TOKENS,
        "num_beams": NUM_BEAMS,
        **more,
    }
    lines = ",\n".join(json.dumps(prompt, separators=(",", ":")) for prompt in prompts)
    (directory / "expected.json").write_text(
        f'{json.dumps(expected)[:-1]}, "prompts": [\n{lines}\n]}}\n', encoding="utf-8"
    )
    lengths = [len(prompt["greedy"]) for prompt in prompts]
    num_bytes = sum(file.stat().st_size for file in directory.iterdir())
    print(f"{directory.name}: {num_bytes} bytes, greedy sequences of {min(lengths)} to {max(lengths)} tokens")


def encoder_decoder_prompt(model, exact_model, tokens, name):
    """Both stacks on a batch padded to a longer neighbour, as a mask hides it; logits behind some forced
    tokens."""
    neighbour = torch.full([len(tokens) + 11], 5)
    ids = torch.full([2, len(neighbour)], model.config.pad_token_id)
    ids[0, : len(tokens)], ids[1] = torch.tensor(tokens), neighbour
    mask = torch.ones_like(ids)
    mask[0, len(tokens):] = 0
    forced = torch.randint(
        3, VOCAB_SIZE, [NUM_FORCED_TOKENS], generator=torch.Generator().manual_seed(len(tokens))
    )
    decoder_ids = torch.cat([torch.tensor([model.config.decoder_start_token_id]), forced])
    output = model(input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids.repeat(2, 1))
    return {
        "tokens": tokens,
        "hidden_states": some_positions(output.encoder_last_hidden_state[:1, : len(tokens)]),
        "forced": forced.tolist(),
        "logits": rounded(output.logits[0, -1].tolist()),
        "greedy": generate_surely(model, exact_model, tokens, 1, name)[0],
        "beams": generate_surely(model, exact_model, tokens, NUM_BEAMS, name),
    }
