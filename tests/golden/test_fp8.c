/* f8_e4m3 against torch.float8_e4m3fn: the table of its 256 values, and the rounding of a thousand float32, among them ties, their
 * neighbours, and what is too large. */
#include "tests/there.h"
#include "tests/fixtures/fixture.h"

#define GOLDEN "../shared/golden/fp8/fp8.json"

/* A value as the table has it: a number, or a string for what JSON has no number for. */
static float value_of(const json_t *v)
{
    const char *s = json_string_value(v);
    return s ? strtof(s, NULL) : (float)json_number_value(v);
}

static void same_value(float got, float want, size_t byte, const char *how)
{
    if (isnan(want) ? !isnan(got) : got != want || signbit(got) != signbit(want))
        fail_msg("byte %02zx %s: %g, expected %g", byte, how, (double)got, (double)want);
}

static void decoding(void **state)
{
    const json_t *table = json_object_get(json_object_get(*state, "decode"), "e4m3fn");
    const struct row_kernels *levels[MAX_LEVELS];
    uint8_t bytes[256];
    float y[256];
    int n = levels_of_machine(levels);
    assert_int_equal(json_array_size(table), 256);
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)i;
    for (int k = 0; k < n; k++) {
        levels[k]->decode[DTYPE_F8_E4M3](y, bytes, 256);
        for (size_t i = 0; i < 256; i++)
            same_value(y[i], value_of(json_array_get(table, i)), i, levels[k]->isa);
    }
}

static void rounding(void **state)
{
    const json_t *cases = json_object_get(*state, "round_e4m3fn"), *item;
    size_t i;
    assert_true(json_array_size(cases) >= 1000);
    json_array_foreach(cases, i, item) {
        uint32_t bits = (uint32_t)strtoul(json_string_value(json_array_get(item, 0)), NULL, 16);
        float f;
        uint8_t got, want = (uint8_t)json_integer_value(json_array_get(item, 1));
        memcpy(&f, &bits, 4);
        dtype_encode(&got, &f, 1, DTYPE_F8_E4M3);
        if (got != want)
            fail_msg("%g (%08x): %02x, expected %02x", (double)f, bits, got, want);
    }
}

static int set_up(void **state)
{
    struct err err = {0};
    *state = json_read(GOLDEN, &err);
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    json_decref(*state);
    return 0;
}

int main(void)
{
    if (!path_exists(GOLDEN)) {
        printf("SKIP: no %s\n", GOLDEN);
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(decoding), cmocka_unit_test(rounding)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
