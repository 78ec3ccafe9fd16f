// Asks the model that is named, as programs in JavaScript do, and prints what came of it as JSON.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });  // address and key: OPENAI_BASE_URL, OPENAI_API_KEY
const model = process.argv[2];
const messages = [{ role: "user", content: "What is the capital of France?" }];
const limits = { max_tokens: 8, temperature: 0 };

async function refusal(asked) {
  try {
    await asked;
  } catch (error) {
    return error.constructor.name;
  }
}

const models = [];
for await (const one of await client.models.list()) models.push(one.id);
const whole = await client.chat.completions.create({ model, messages, ...limits });
let said = "";
for await (const chunk of await client.chat.completions.create({ model, messages, ...limits, stream: true })) {
  said += chunk.choices[0]?.delta?.content ?? "";
}
const completion = await client.completions.create({ model, prompt: "Once", max_tokens: 4 });
const wrong = client.withOptions({ apiKey: "aif_wrong" });
console.log(JSON.stringify({
  models,
  whole: whole.choices[0].message.content,
  said,
  completion: completion.choices[0].text,
  unknown: await refusal(client.chat.completions.create({ model: "nope", messages })),
  wrongKey: await refusal(wrong.models.list()),
  tooLong: await refusal(client.completions.create({ model, prompt: "word ".repeat(1000) })),
}));
