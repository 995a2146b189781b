// A student of `workbench.students.build` in plain JavaScript, for a page that asks nobody: text -> token ids -> logits
// -> label, probability and refusal, as serve.py gives them. The page holds the student's own files; names and texts
// from them are shown as text alone (textContent).
"use strict";

// What byte-level BPE calls each byte: printable ones stand for themselves, the others for the characters from 256 on.
const BYTES = (() => {
  const names = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    names.push(String.fromCharCode(printable ? byte : next++));
  }
  return names;
})();
// The pieces of GPT-2; JavaScript's own \s is another set than \p{White_Space}.
const ENDS = "'(?:[sdmt]|ll|ve|re)", WORDS = " ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+";
const SPACES = "\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+";
const PIECES = new RegExp(`${ENDS}|${WORDS}|${SPACES}`, "gu");

class TextReader {
  // Reads a tokenizer.json: NFC, lower case, the first characters only, then byte-level BPE.
  constructor(file, most) {
    this.most = most; // tokens of a text
    this.vocabulary = new Map(Object.entries(file.model.vocab));
    this.ranks = new Map(file.model.merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    this.special = new Map(file.added_tokens.map((token) => [token.content, token.id]));
    const names = [...this.special.keys()].map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.apart = new RegExp(`(${names.join("|")})`);
    const cut = file.normalizer.normalizers.find((step) => step.type === "Replace");
    this.characters = Number(/\{(\d+)\}/.exec(cut.pattern.Regex)[1]);
  }

  encode(text) {
    const ids = [];
    for (const part of text.split(this.apart)) { // a special token that was typed is one, as in Python
      if (this.special.has(part)) ids.push(this.special.get(part));
      else if (part) for (const piece of this.normalise(part).match(PIECES)) ids.push(...this.merge(piece));
    }
    return [this.special.get("[CLS]"), ...ids.slice(0, this.most - 2), this.special.get("[SEP]")];
  }

  normalise(part) {
    const first = [...part.normalize("NFC")].slice(0, this.characters);
    const lower = first.map((character) => character.toLowerCase()).join(""); // alone: no final sigma
    const cut = [...lower].slice(0, this.characters).join("");
    return cut.startsWith(" ") ? cut : ` ${cut}`;
  }

  merge(piece) {
    let symbols = [...new TextEncoder().encode(piece)].map((byte) => BYTES[byte]);
    while (symbols.length > 1) {
      const pairs = symbols.slice(1).map((right, i) => `${symbols[i]} ${right}`);
      const best = Math.min(...pairs.map((pair) => this.ranks.get(pair) ?? Infinity));
      if (best === Infinity) break;
      const merged = [];
      for (let i = 0; i < symbols.length; i++) {
        const joined = i < pairs.length && this.ranks.get(pairs[i]) === best;
        merged.push(joined ? symbols[i] + symbols[++i] : symbols[i]);
      }
      symbols = merged;
    }
    return symbols.map((symbol) => this.vocabulary.get(symbol));
  }
}

function tensors(base64) {
  // Of a safetensors file: bytes of the head, the head in JSON, the numbers (float32, as `pack` has checked).
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { __metadata__: _, ...head } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const of = ([from, to]) => new Float32Array(bytes.buffer, start + from, (to - from) / 4);
  return Object.fromEntries(Object.entries(head).map(([name, tensor]) => [name, of(tensor.data_offsets)]));
}

function linear(x, weight, width) {
  // [n, width] times the transpose of [m, width]: [n, m].
  const n = x.length / width, m = weight.length / width, out = new Float32Array(n * m);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < m; column++) {
      let sum = 0;
      for (let i = 0, a = row * width, b = column * width; i < width; i++) sum += x[a + i] * weight[b + i];
      out[row * m + column] = sum;
    }
  }
  return out;
}

function layerNorm(x, weight, epsilon) {
  const width = weight.length, out = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += width) {
    const row = x.subarray(start, start + width);
    const mean = row.reduce((sum, value) => sum + value, 0) / width;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    for (let i = 0; i < width; i++) out[start + i] = ((row[i] - mean) / Math.sqrt(variance + epsilon)) * weight[i];
  }
  return out;
}

function gelu(x) {
  // x times the normal distribution's share below it; erf as in Abramowitz and Stegun 7.1.26, off by 2e-7 at most.
  const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const erf = 1 - series * Math.exp(-z * z);
  return 0.5 * x * (1 + (x < 0 ? -erf : erf));
}

function softmax(values) {
  const most = values.reduce((a, b) => Math.max(a, b));
  const shares = values.map((value) => Math.exp(value - most));
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}

class Student {
  // A ModernBERT (arXiv:2412.13663) whose every layer sees the whole text: logits are those of PyTorch.
  constructor({ model, tokenizer, config, most }) {
    this.config = config;
    this.weights = tensors(model);
    this.reader = new TextReader(tokenizer, most);
  }

  logits(ids) {
    const { hidden_size: width, num_hidden_layers: layers, norm_eps: epsilon } = this.config, w = this.weights;
    const norm = (x, name) => layerNorm(x, w[`${name}.weight`], epsilon);
    const times = (x, name, k = width) => linear(x, w[`${name}.weight`], k);
    const table = w["model.embeddings.tok_embeddings.weight"];
    let x = new Float32Array(ids.length * width);
    ids.forEach((id, i) => x.set(table.subarray(id * width, (id + 1) * width), i * width));
    x = norm(x, "model.embeddings.norm");
    for (let layer = 0; layer < layers; layer++) {
      const name = `model.layers.${layer}`;
      const seen = layer ? norm(x, `${name}.attn_norm`) : x; // the embeddings are scaled already
      const mixed = times(this.attend(times(seen, `${name}.attn.Wqkv`)), `${name}.attn.Wo`);
      x = x.map((value, i) => value + mixed[i]);
      const opened = this.gate(times(norm(x, `${name}.mlp_norm`), `${name}.mlp.Wi`));
      const added = times(opened, `${name}.mlp.Wo`, this.config.intermediate_size);
      x = x.map((value, i) => value + added[i]);
    }
    x = norm(x, "model.final_norm");
    const mean = new Float32Array(width);
    x.forEach((value, i) => (mean[i % width] += value / ids.length));
    const head = norm(times(mean, "head.dense").map(gelu), "head.norm");
    return times(head, "classifier").map((value, i) => value + w["classifier.bias"][i]);
  }

  gate(x) {
    // [n, 2 m]: the first half of each row after GELU, times the second.
    const m = this.config.intermediate_size, out = new Float32Array(x.length / 2);
    return out.map((_, i) => {
      const at = Math.floor(i / m) * 2 * m + (i % m);
      return gelu(x[at]) * x[at + m];
    });
  }

  attend(qkv) {
    // [n, 3 width], queries, keys and values of each head in turn: [n, width]. Positions turn queries and keys.
    const { hidden_size: width, num_attention_heads: heads, rope_parameters: rope } = this.config;
    const size = width / heads, half = size / 2, n = qkv.length / (3 * width), out = new Float32Array(n * width);
    for (let at = 0; at < n; at++) {
      for (let i = 0; i < half; i++) {
        const angle = at / rope.full_attention.rope_theta ** (i / half), cos = Math.cos(angle), sin = Math.sin(angle);
        for (let first = at * 3 * width + i; first < (at * 3 + 2) * width; first += size) {
          const a = qkv[first], b = qkv[first + half];
          qkv[first] = a * cos - b * sin;
          qkv[first + half] = b * cos + a * sin;
        }
      }
    }
    const scores = new Float64Array(n);
    for (let head = 0; head < heads; head++) {
      for (let query = 0; query < n; query++) {
        const q = query * 3 * width + head * size, to = query * width + head * size;
        for (let key = 0; key < n; key++) {
          let sum = 0;
          for (let i = 0, k = (key * 3 + 1) * width + head * size; i < size; i++) sum += qkv[q + i] * qkv[k + i];
          scores[key] = sum / Math.sqrt(size);
        }
        const shares = softmax(scores);
        for (let key = 0; key < n; key++) {
          const v = (key * 3 + 2) * width + head * size;
          for (let i = 0; i < size; i++) out[to + i] += shares[key] * qkv[v + i];
        }
      }
    }
    return out;
  }

  answer(text) {
    const logits = Float64Array.from(this.logits(this.reader.encode(text)));
    const shares = softmax(logits.map((value) => value / this.config.temperature));
    const score = shares.reduce((a, b) => Math.max(a, b));
    return { label: this.config.id2label[shares.indexOf(score)], score, refused: score < this.config.refuse_below };
  }
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function openBox(box) {
  const packed = JSON.parse(box.querySelector("script").textContent), student = new Student(packed);
  const text = box.querySelector("textarea"), stored = box.querySelector("select");
  const said = new Map(packed.said), told = box.querySelector("output");
  for (const each of said.keys()) {
    const option = document.createElement("option");
    option.textContent = option.value = each;
    stored.append(option);
  }

  function show(...lines) {
    told.replaceChildren(...lines.map(([name, words]) => {
      const found = document.createElement("p");
      return Object.assign(found, { className: name, textContent: words });
    }));
  }

  function ask() {
    const asked = text.value;
    if (!asked) return show();
    if (/\p{Surrogate}/u.test(asked)) return show(["refused", "There is half a character in it: type whole ones."]);
    const began = performance.now(), { label, score, refused } = student.answer(asked);
    const lines = [["label", `${label}, ${percent(score)}`]];
    if (refused) lines.push(["refused", `refused: not sure enough (below ${percent(student.config.refuse_below)})`]);
    lines.push(["note", `${(performance.now() - began).toFixed(1)} ms in this page.`]);
    if (said.has(asked)) lines.push(["note", `Its teacher had said: ${said.get(asked)}.`]);
    else if (said.size) lines.push(["note", "What its teacher says of this text is not stored here."]);
    show(...lines);
  }

  text.addEventListener("input", ask);
  stored.addEventListener("change", () => {
    text.value = stored.value;
    ask();
  });
  box.querySelector(".unable").hidden = true;
  box.querySelector(".asking").hidden = false;
  ask(); // a browser may have kept what was typed
  return student;
}

const asked = [...document.querySelectorAll(".ask")].map(openBox);
