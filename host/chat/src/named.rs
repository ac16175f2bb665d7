//! Chat templates by name, for files that carry none: the markers that the families document.

/// The source of the template of this name; none where there is no such.
#[must_use]
pub fn named_template(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(known, _)| *known == name).map(|(_, source)| *source)
}

/// The names that [`named_template`] knows.
pub fn template_names() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|(name, _)| *name)
}

const TEMPLATES: [(&str, &str); 16] = [
    (
        "chatml",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    (
        "command-r",
        "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>\
         <|{{ {'system': 'SYSTEM', 'assistant': 'CHATBOT'}.get(m.role, 'USER') }}_TOKEN|>\
         {{ m.content | trim }}<|END_OF_TURN_TOKEN|>{% endfor %}\
         {% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
    ),
    (
        "deepseek3",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}\
         <｜end▁of▁sentence｜>{% elif m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}{{ m.content }}{% endif %}\
         {% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
    ),
    (
        "falcon3",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\
         {{ eos_token if m.role == 'assistant' else '' }}\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
    ("gemma", GEMMA),
    (
        "glm4",
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
    (
        "granite",
        "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}\
         {% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
    ),
    ("llama2", LLAMA2),
    (
        "llama3",
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
         {{ m.content | trim }}<|eot_id|>{% endfor %}\
         {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ),
    (
        "llama4",
        "{{ bos_token }}{% for m in messages %}<|header_start|>{{ m.role }}<|header_end|>\n\n\
         {{ m.content | trim }}<|eot|>{% endfor %}\
         {% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}",
    ),
    ("mistral-v1", MISTRAL_V1),
    (
        "mistral-v7",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}[SYSTEM_PROMPT] {{ m.content }}[/SYSTEM_PROMPT]\
         {% elif m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}\
         {% endfor %}",
    ),
    (
        "phi3",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
    (
        "phi4",
        "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
    ),
    (
        "vicuna",
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}\
         USER: {{ m.content }}\n{% else %}ASSISTANT: {{ m.content }}</s>\n{% endif %}{% endfor %}\
         {% if add_generation_prompt %}ASSISTANT:{% endif %}",
    ),
    (
        "zephyr",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
];

/// Gemma's turns know no system: what it says stands before the first message.
const GEMMA: &str = "{{ bos_token }}{% set system = namespace(text='') %}{% for m in messages %}\
    {% if m.role == 'system' %}{% set system.text = m.content | trim ~ '\n\n' %}{% else %}\
    <start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n\
    {{ system.text }}{{ m.content | trim }}<end_of_turn>\n{% set system.text = '' %}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";

/// Llama 2's: the system's text stands within the first instruction.
const LLAMA2: &str = "{% set system = namespace(text='') %}{% for m in messages %}{% if m.role == 'system' %}\
    {% set system.text = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}\
    {{ bos_token }}[INST] {{ system.text }}{{ m.content }} [/INST]{% set system.text = '' %}\
    {% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}";

/// Mistral's first: the system's text stands before the first message.
const MISTRAL_V1: &str = "{{ bos_token }}{% set system = namespace(text='') %}{% for m in messages %}\
    {% if m.role == 'system' %}{% set system.text = m.content ~ '\n\n' %}{% elif m.role == 'user' %}\
    [INST] {{ system.text }}{{ m.content }} [/INST]{% set system.text = '' %}\
    {% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatTemplate, Message};

    fn rendered(name: &str) -> String {
        let messages = [
            Message::new("system", "Be brief."),
            Message::new("user", "Hi"),
            Message::new("assistant", "Hello"),
            Message::new("user", "Bye"),
        ];
        let template = ChatTemplate::new(named_template(name).unwrap(), "<s>", "</s>").unwrap();
        template.render(&messages, true).unwrap()
    }

    #[test]
    fn turns_of_each_family() {
        assert_eq!(
            rendered("chatml"),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n\
             <|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(
            rendered("gemma"),
            "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n\
             <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
        );
        assert_eq!(
            rendered("llama2"),
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST]"
        );
        assert_eq!(
            rendered("llama3"),
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi\
             <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>user\
             <|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        );
        assert_eq!(
            rendered("command-r"),
            "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi\
             <|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|>\
             <|USER_TOKEN|>Bye<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
        );
        assert_eq!(rendered("mistral-v1"), "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST]");
        assert_eq!(
            rendered("phi3"),
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\n"
        );
    }

    #[test]
    fn every_template_renders() {
        for name in template_names() {
            let text = rendered(name);
            assert!(
                ["Be brief.", "Hi", "Hello", "Bye"].iter().all(|part| text.contains(part)),
                "{name}: {text}"
            );
        }
        assert_eq!(named_template("no-such"), None);
    }
}
