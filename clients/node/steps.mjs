// Runs a client's steps, each a function, and says how they went.

export const address = process.env.HERALD_ADDRESS;
export const base = `${address}/v1`;
// The server has one model, whatever it is called.
export const model = "smollm2-135m-instruct";
export const key = "none";
export const question = "What is the weather in Paris, in celsius?";
export const weather = {
  type: "object",
  properties: {
    city: { type: "string", maxLength: 20 },
    unit: { type: "string", enum: ["celsius", "fahrenheit"] },
  },
  required: ["city", "unit"],
  additionalProperties: false,
};

export function check(holds, what) {
  if (!holds) throw new Error(`not so: ${what}`);
}

export function checkWeather(given) {
  check(Object.keys(given).sort().join() === "city,unit", JSON.stringify(given));
  check(weather.properties.unit.enum.includes(given.unit), JSON.stringify(given));
}

/** Runs steps; the process ends with 1 where one failed. */
export async function run(name, steps) {
  for (const [title, step] of Object.entries(steps)) {
    try {
      await step();
      console.log(`${name}: ${title}: ok`);
    } catch (error) {
      process.exitCode = 1;
      console.log(`${name}: ${title}: FAILED`);
      console.error(error);
    }
  }
}
