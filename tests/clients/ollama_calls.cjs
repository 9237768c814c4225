// Ollama's npm client against a gateway: `node ollama_calls.cjs URL KEY`; prints JSON.
"use strict";

const { Ollama } = require("ollama");

const [host, key] = process.argv.slice(2);
const client = new Ollama({ host, headers: { Authorization: `Bearer ${key}` } });
const question = "What is the capital of France?";
const messages = [{ role: "user", content: question }];
const options = { temperature: 0 };

async function joined(stream, text) {
  let all = "";
  for await (const part of stream) all += text(part) ?? "";
  return all;
}

async function refusal(call) {
  try {
    await call();
  } catch (error) {
    return [error.name, error.status_code, error.message];
  }
  return [];
}

async function main() {
  const whole = await client.chat({ model: "demo", messages, options });
  const stream = await client.chat({ model: "demo", messages, options, stream: true });
  const generated = await client.generate({ model: "demo", prompt: question, options, stream: true });
  const vectors = await client.embed({ model: "demo-embed", input: ["a", "b"] });
  console.log(JSON.stringify({
    whole: whole.message.content,
    reason: whole.done_reason,
    stream: await joined(stream, (part) => part.message.content),
    generate: await joined(generated, (part) => part.response),
    lengths: vectors.embeddings.map((row) => row.length),
    names: (await client.list()).models.map((model) => model.name),
    running: (await client.ps()).models.map((model) => model.name),
    shown: (await client.show({ model: "demo" })).details.quantization_level,
    pull: await refusal(() => client.pull({ model: "x" })),
    "no model": await refusal(() => client.chat({ model: "other", messages })),
  }));
}

main();
