// OpenAI's npm client against a gateway: `node openai_calls.cjs URL KEY`; prints JSON.
"use strict";

const OpenAI = require("openai");

const [url, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const fields = { model: "demo", messages, temperature: 0 };

async function joined(stream, text) {
  let all = "";
  for await (const part of stream) all += text(part) ?? "";
  return all;
}

async function refusal(call) {
  try {
    await call();
  } catch (error) {
    return [error.constructor.name, error.status, error.code];
  }
  return [];
}

async function main() {
  const whole = await client.chat.completions.create(fields);
  const stream = await client.chat.completions.create({ ...fields, stream: true });
  const response = await client.responses.create({ model: "demo", input: messages[0].content, temperature: 0 });
  const vectors = await client.embeddings.create({ model: "demo-embed", input: ["a", "b"] });
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  console.log(JSON.stringify({
    whole: whole.choices[0].message.content,
    finish: whole.choices[0].finish_reason,
    stream: await joined(stream, (part) => part.choices[0]?.delta?.content),
    response: response.output_text,
    lengths: vectors.data.map((row) => row.embedding.length),
    names,
    "too long": await refusal(() => client.chat.completions.create({
      ...fields, messages: [{ role: "user", content: "word ".repeat(3000) }],
    })),
    "no model": await refusal(() => client.chat.completions.create({ ...fields, model: "other" })),
    "no key": await refusal(() => new OpenAI({ baseURL: `${url}/v1`, apiKey: "x", maxRetries: 0 }).models.list()),
  }));
}

main();
