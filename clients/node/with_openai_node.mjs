// openai-node.

import OpenAI from "openai";
import { base, check, checkWeather, key, model, question, run, weather } from "./steps.mjs";

const client = new OpenAI({ baseURL: base, apiKey: key, maxRetries: 0 });
const ask = [{ role: "user", content: "What is gravity?" }];
const tools = [
  { type: "function", function: { name: "get_weather", description: "The weather in a city.", parameters: weather } },
];

await run("openai-node", {
  async chat() {
    const answer = await client.chat.completions.create({ model, messages: ask, max_tokens: 16 });
    check(answer.choices[0].message.content, "some text");
  },
  async stream() {
    const chunks = await client.chat.completions.create({ model, messages: ask, max_tokens: 16, stream: true });
    let text = "";
    for await (const chunk of chunks) text += chunk.choices[0]?.delta?.content ?? "";
    check(text, "some text");
  },
  async tools() {
    const messages = [{ role: "user", content: question }];
    const answer = await client.chat.completions.create({
      model,
      messages,
      tools,
      tool_choice: "required",
      parallel_tool_calls: false,
      max_tokens: 120,
    });
    const message = answer.choices[0].message;
    checkWeather(JSON.parse(message.tool_calls[0].function.arguments));
    messages.push(message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "18 degrees" });
    const after = await client.chat.completions.create({ model, messages, tools, max_tokens: 24 });
    check(after.choices[0].message, "an answer");
  },
  async toolsStreamed() {
    const stream = client.chat.completions.stream({
      model,
      messages: [{ role: "user", content: question }],
      tools,
      tool_choice: { type: "function", function: { name: "get_weather" } },
      parallel_tool_calls: false,
      max_tokens: 120,
    });
    const done = await stream.finalChatCompletion();
    checkWeather(JSON.parse(done.choices[0].message.tool_calls[0].function.arguments));
  },
  async structured() {
    const answer = await client.chat.completions.parse({
      model,
      messages: [{ role: "user", content: question }],
      response_format: { type: "json_schema", json_schema: { name: "weather", schema: weather, strict: true } },
      max_tokens: 120,
    });
    checkWeather(JSON.parse(answer.choices[0].message.content));
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model, input: ["one text", "another"], dimensions: 8 });
    check(answer.data.length === 2 && answer.data[0].embedding.length === 8, "two of 8");
  },
  async responses() {
    const answer = await client.responses.create({ model, input: "What is gravity?", max_output_tokens: 16 });
    check(answer.output_text, "some text");
  },
});
