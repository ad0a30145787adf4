"""Speech to text: OpenAI's Whisper, computed by CTranslate2 on the CPU; `consent.models` has its weights."""
