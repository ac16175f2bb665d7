// Vercel's `ai`, by its OpenAI provider (the Responses API) and the one for compatible servers (chat completions).

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { base, check, checkWeather, key, model, question, run } from "./steps.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const compatible = createOpenAICompatible({
  name: "here",
  baseURL: base,
  apiKey: key,
  supportsStructuredOutputs: true,
  includeUsage: true,
});
const responses = createOpenAI({ baseURL: base, apiKey: key });
const models = { compatible: compatible(model), responses: responses(model) };
// Nothing is stored here: each request has the whole conversation.
const shared = { maxRetries: 0, providerOptions: { openai: { store: false } } };
const few = { maxOutputTokens: 16, ...shared };
const more = { maxOutputTokens: 120, ...shared };

const steps = {
  async embeddings() {
    const done = await embedMany({
      model: compatible.textEmbeddingModel(model),
      values: ["one text", "another"],
      maxRetries: 0,
    });
    check(done.embeddings.length === 2, "two embeddings");
  },
};
for (const [name, language] of Object.entries(models)) {
  steps[`${name}: chat`] = async () => {
    check((await generateText({ model: language, prompt: "What is gravity?", ...few })).text, "some text");
  };
  steps[`${name}: stream`] = async () => {
    let text = "";
    const streamed = streamText({
      model: language,
      prompt: "What is gravity?",
      ...few,
      onError({ error }) {
        throw error;
      },
    });
    for await (const part of streamed.textStream) text += part;
    check(text, "some text");
  };
  steps[`${name}: tools`] = async () => {
    const called = [];
    const get_weather = tool({
      description: "The weather in a city.",
      inputSchema: z.object({ city: z.string().max(20), unit: z.enum(["celsius", "fahrenheit"]) }),
      async execute(given) {
        called.push(given);
        return "18 degrees";
      },
    });
    const done = await generateText({
      model: language,
      prompt: question,
      tools: { get_weather },
      toolChoice: "required",
      stopWhen: stepCountIs(2),
      ...more,
    });
    check(called.length > 0 && done.steps.length === 2, "a call, and its result sent back");
    checkWeather(called[0]);
  };
  steps[`${name}: structured`] = async () => {
    const schema = z.object({ inhabitants: z.number().int(), isCapital: z.boolean() });
    const done = await generateText({
      model: language,
      prompt: "How large is Paris?",
      output: Output.object({ schema }),
      ...more,
    });
    check(Number.isInteger(done.output.inhabitants), JSON.stringify(done.output));
  };
}
await run("vercel-ai", steps);
