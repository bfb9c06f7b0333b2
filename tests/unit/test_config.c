/* The description of a model, from config.json. */
#include "tests/tiny_model.h"

#include "core/base/json.h"
#include "core/model/config.h"

static int read_text(struct config *c, const char *json, struct err *err)
{
    scratch_dir("model");
    write_text(in_scratch("model/config.json"), json);
    return config_from_hf(c, in_scratch("model"), err);
}

#define SIZES "\"hidden_size\":64,\"intermediate_size\":96,\"num_attention_heads\":8,\"num_hidden_layers\":3,\"vocab_size\":100"

static void llama_1_leaves_much_out(void **state)
{
    (void)state;
    struct config c;
    OK(read_text(&c, "{\"architectures\":[\"LLaMAForCausalLM\"]," SIZES "}", &err));
    assert_true(c.dim == 64 && c.ffn_dim == 96 && c.n_heads == 8 && c.n_blocks == 3 && c.vocab_size == 100);
    assert_true(c.n_kv_heads == 8 && c.head_dim == 8 && c.context_length == 2048);
    assert_true(c.norm_eps == 1e-6 && c.rope_theta == 10000 && c.rope_kind == ROPE_DEFAULT && !c.tied_embeddings);
    assert_true(c.bos == -1 && c.eos == -1 && c.pad == -1);
}

/* What the configs of LLaMA-1 and of Vicuna say besides, and what they leave out. */
static void old_files(void **state)
{
    (void)state;
    struct config c;
    OK(read_text(&c,
                 "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\"," SIZES ",\"hidden_act\":\"silu\","
                 "\"initializer_range\":0.02,\"max_sequence_length\":1024,\"pretraining_tp\":1,\"rope_scaling\":null,"
                 "\"num_key_value_heads\":null,\"rope_theta\":null,\"head_dim\":null,\"tie_word_embeddings\":null,"
                 "\"bos_token_id\":0,\"eos_token_id\":1,\"pad_token_id\":-1,\"torch_dtype\":\"float16\",\"use_cache\":true}",
                 &err));
    assert_true(c.n_kv_heads == 8 && c.head_dim == 8 && c.rope_theta == 10000 && c.rope_kind == ROPE_DEFAULT);
    assert_true(!c.tied_embeddings && c.context_length == 1024 && c.bos == 0 && c.eos == 1 && c.pad == -1);
    /* both: the later name counts, wherever it stands */
    OK(read_text(&c, "{" SIZES ",\"max_position_embeddings\":4096,\"max_sequence_length\":2048}", &err));
    assert_int_equal(c.context_length, 4096);
    OK(read_text(&c, "{" SIZES ",\"max_sequence_length\":2048,\"max_position_embeddings\":4096}", &err));
    assert_int_equal(c.context_length, 4096);
    struct err err = {0};
    expect_error(read_text(&c, "{" SIZES ",\"max_sequence_length\":\"2048\"}", &err), &err, "max_sequence_length");
}

static void everything_said(void **state)
{
    (void)state;
    struct config c;
    OK(read_text(&c,
                 "{" SIZES ",\"model_type\":\"llama\",\"num_key_value_heads\":2,\"head_dim\":16,\"rms_norm_eps\":1e-5,"
                 "\"rope_theta\":500000.0,\"tie_word_embeddings\":true,\"max_position_embeddings\":4096,\"bos_token_id\":1,"
                 "\"eos_token_id\":[2,3],\"pad_token_id\":null,\"rope_scaling\":null,\"sliding_window\":null}",
                 &err));
    assert_true(c.n_kv_heads == 2 && c.head_dim == 16 && c.norm_eps == 1e-5 && c.rope_theta == 500000 && c.tied_embeddings);
    assert_true(c.context_length == 4096 && c.bos == 1 && c.eos == 2 && c.pad == -1);
    OK(read_text(&c, "{" SIZES ",\"model_type\":\"mistral\"}", &err));
}

static void rope_kinds_in_both_layouts(void **state)
{
    (void)state;
    struct config c;
    OK(read_text(&c, "{" SIZES ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}", &err));
    assert_true(c.rope_kind == ROPE_LINEAR && c.rope_factor == 4);
    OK(read_text(&c,
                 "{" SIZES ",\"rope_theta\":500000,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,"
                 "\"high_freq_factor\":4,\"original_max_position_embeddings\":8192}}",
                 &err));
    assert_true(c.rope_kind == ROPE_LLAMA3 && c.rope_factor == 8 && c.rope_theta == 500000 && c.rope_original_context == 8192);
    OK(read_text(&c, "{" SIZES ",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":77.0}}", &err));
    assert_true(c.rope_kind == ROPE_DEFAULT && c.rope_theta == 77);
    static const char *const types[] = {"dynamic", "yarn", "longrope", "su", ""};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char json[400];
        struct err err = {0};
        snprintf(json, sizeof json, "{" SIZES ",\"rope_scaling\":{\"rope_type\":\"%s\",\"factor\":2.0}}", types[i]);
        expect_error(read_text(&c, json, &err), &err, "rope type");
    }
}

static void rope_frequencies(void **state)
{
    (void)state;
    struct config c;
    float f[4], g[4];
    OK(read_text(&c, "{" SIZES "}", &err));
    config_rope_frequencies(f, &c);
    static const double want[] = {1, 0.1, 0.01, 0.001}; /* 10000^(-i/4) */
    for (int i = 0; i < 4; i++)
        assert_true(f[i] > want[i] * (1 - 1e-6) && f[i] < want[i] * (1 + 1e-6)); /* a few roundings of float */
    OK(read_text(&c, "{" SIZES ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}", &err));
    config_rope_frequencies(g, &c);
    for (int i = 0; i < 4; i++)
        assert_true(g[i] == f[i] / 4);
}

static void what_is_not_supported(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"\"model_type\":\"gpt2\"", "gpt2"},        {"\"hidden_act\":\"gelu\"", "gelu"},
        {"\"sliding_window\":4096", "4096"},        {"\"model_type\":5", "model_type"},
        {"\"hidden_size\":\"64\"", "hidden_size"},  {"\"hidden_size\":64.0", "hidden_size"},
        {"\"rms_norm_eps\":\"x\"", "rms_norm_eps"}, {"\"tie_word_embeddings\":1", "tie_word_embeddings"},
        {"\"bos_token_id\":\"x\"", "bos_token_id"}, {"\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}", "factor"},
        {"\"rope_scaling\":{\"type\":3}", "type"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[400];
        struct config c;
        struct err err = {0};
        snprintf(json, sizeof json, "{" SIZES ",%s}", bad[i][0]);
        int rc = read_text(&c, json, &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i][0]);
        expect_error(rc, &err, "config.json");
        expect_error(rc, &err, bad[i][1]);
    }
}

static void absurd_sizes(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\"hidden_size\":0",
        "\"hidden_size\":-64",
        "\"hidden_size\":9223372036854775807",
        "\"num_hidden_layers\":0",
        "\"num_hidden_layers\":1000000",
        "\"num_attention_heads\":0",
        "\"num_attention_heads\":-8",
        "\"num_key_value_heads\":3",
        "\"num_key_value_heads\":-1",
        "\"num_key_value_heads\":16",
        "\"head_dim\":7",
        "\"head_dim\":-8",
        "\"head_dim\":1000000",
        "\"intermediate_size\":0",
        "\"vocab_size\":0",
        "\"vocab_size\":99999999999",
        "\"max_position_embeddings\":0",
        "\"rms_norm_eps\":0",
        "\"rms_norm_eps\":-1e-5",
        "\"rms_norm_eps\":2",
        "\"rope_theta\":0",
        "\"rope_theta\":-1",
        "\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}",
        "\"rope_scaling\":{\"type\":\"linear\",\"factor\":-1}",
        "\"rope_scaling\":{\"type\":\"llama3\",\"low_freq_factor\":4,\"high_freq_factor\":1}",
        "\"rope_scaling\":{\"type\":\"llama3\",\"low_freq_factor\":0,\"high_freq_factor\":4,\"original_max_position_embeddings\":"
        "0}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[400];
        struct config c;
        struct err err = {0};
        snprintf(json, sizeof json, "{" SIZES ",%s}", bad[i]);
        int rc = read_text(&c, json, &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i]);
        expect_error(rc, &err, "config.json");
    }
}

static void files_that_are_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "[]", "3", "null", "{", "{}", "{\"hidden_size\":64}", "\xff"};
    struct config c;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        int rc = read_text(&c, bad[i], &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i]);
        expect_error(rc, &err, "config.json");
    }
    struct err err = {0};
    expect_error(config_from_hf(&c, in_scratch("absent"), &err), &err, "absent/config.json");
}

/* The shapes that come with the program. */
static void shapes(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int64_t params;
    } want[] = {{"configs/shapes/vicuna-7b-v1.3.json", 6738415616}, {"configs/shapes/llama-1.1b.json", 1100048384}};
    for (int i = 0; i < 2; i++) {
        struct config c;
        struct err err = {0};
        json_t *root = json_read(want[i].file, &err);
        OK(config_from_json(&c, root, want[i].file, &err));
        json_decref(root);
        int64_t q = c.n_heads * c.head_dim, kv = c.n_kv_heads * c.head_dim, d = c.dim;
        int64_t block = 2 * d * q + 2 * d * kv + 3 * d * c.ffn_dim + 2 * d;
        assert_int_equal(2 * c.vocab_size * d + d + c.n_blocks * block, want[i].params);
        assert_false(c.tied_embeddings);
    }
}

static void quantised_folders(void **state)
{
    (void)state;
    struct config c;
#define GROUP(weights)                                                                                                             \
    "{" SIZES ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"g\":{\"weights\":" weights   \
    "}}}}"
    OK(read_text(&c, GROUP("{\"type\":\"float\",\"num_bits\":8,\"strategy\":\"channel\"}"), &err));
    OK(read_text(&c, "{" SIZES ",\"quantization_config\":null}", &err));
    static const char *const bad[] = {
        "{" SIZES ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}",
        "{" SIZES ",\"quantization_config\":{}}",
        "{" SIZES ",\"quantization_config\":{\"quant_method\":8}}",
        GROUP("{\"type\":\"int\",\"num_bits\":8,\"strategy\":\"channel\"}"),
        GROUP("{\"type\":\"float\",\"num_bits\":4,\"strategy\":\"channel\"}"),
        GROUP("{\"type\":\"float\",\"num_bits\":8,\"strategy\":\"tensor\"}"),
        GROUP("null"),
        GROUP("[]"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        int rc = read_text(&c, bad[i], &err);
        if (rc == 0)
            fail_msg("accepted: %s", bad[i]);
        expect_error(rc, &err, "config.json");
        expect_error(rc, &err, "quant");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_1_leaves_much_out),
        cmocka_unit_test(old_files),
        cmocka_unit_test(everything_said),
        cmocka_unit_test(rope_kinds_in_both_layouts),
        cmocka_unit_test(rope_frequencies),
        cmocka_unit_test(what_is_not_supported),
        cmocka_unit_test(absurd_sizes),
        cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(shapes),
        cmocka_unit_test(quantised_folders),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
