"use strict";
const words = { yes: "Yes: our artificial voice said this.", no: "No: our mark is not in it.",
  unsure: "Unsure: too short or too damaged to say." };
document.getElementById("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = document.getElementById("answer");
  answer.textContent = "Looking…";
  try {
    const reply = await fetch("detect", { method: "POST", body: document.getElementById("file").files[0] });
    const said = await reply.json();
    answer.textContent = said.answer in words
      ? words[said.answer] + " Examined: " + said.examined + "."
      : "It could not be examined: " + said.error;
  } catch {
    answer.textContent = "The detector cannot be reached.";
  }
});
