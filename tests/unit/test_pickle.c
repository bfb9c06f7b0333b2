/* Pickles that would run something, or that ask for more than a state dict needs, inside an archive that is in order. */
#include "tests/pytorch_file.h"

struct text {
    const char *p;
    size_t n;
    const char *part;
};
#define PICKLE(bytes, part)                                                                                                        \
    {                                                                                                                              \
        bytes, sizeof bytes - 1, part                                                                                              \
    }

static void hostile_pickles(void **state)
{
    (void)state;
    static const struct text bad[] = {
        /* calls */
        PICKLE("\x80\x02"
               "cos\nsystem\nX\2\0\0\0id\x85R.",
               "os.system is not something this reader calls"),
        PICKLE("\x80\x02"
               "cposix\nsystem\n.",
               "posix.system is not something this reader calls"),
        PICKLE("\x80\x02"
               "c__builtin__\neval\nX\1\0\0\0"
               "1\x85R.",
               "__builtin__.eval is not something this reader calls"),
        PICKLE("\x80\x04\x8c\2os\x8c\6system\x93\x8c\2id\x85R.", "os.system is not something this reader calls"),
        PICKLE("\x80\x04\x8c\2osK\1\x93.", "a name that is no text"),
        PICKLE("\x80\x02(X\2\0\0\0idios\nsystem\n.", "os.system is not something this reader calls"),
        PICKLE("\x80\x02(icollections\nOrderedDict\n.", "collections.OrderedDict is not something this reader calls"),
        PICKLE("\x80\x02(ccollections\nOrderedDict\no.", "OBJ"),
        PICKLE("\x80\x04"
               "ccollections\nOrderedDict\n)}\x92.",
               "NEWOBJ_EX"),
        PICKLE("\x80\x02"
               "csubprocess\nPopen\n)\x81.",
               "subprocess.Popen is not something this reader calls"),
        PICKLE("\x80\x02"
               "ctorch\nFloatStorage\n)R.",
               "torch.FloatStorage is not something this reader calls"),
        PICKLE("\x80\x02"
               "ctorch\nFloatStorage\n)\x81.",
               "torch.FloatStorage is not something this reader calls"),
        PICKLE("\x80\x02\x82\1.", "EXT1"),
        PICKLE("\x80\x02\x83\1\0.", "EXT2"),
        PICKLE("\x80\x02\x84\1\0\0\0.", "EXT4"),
        PICKLE("\x80\x02P0\n.", "PERSID"),
        PICKLE("\x80\x02"
               "ctorch._utils\n_rebuild_tensor_v3\n.",
               "torch._utils._rebuild_tensor_v3 is not something this reader calls"),
        PICKLE("\x80\x02"
               "ctorch._utils\nX_rebuild_tensor_v2\n.",
               "torch._utils.X_rebuild_tensor_v2 is not something"),
        PICKLE("\x80\x02"
               "ctorch.storage\n_load_from_bytes\n.",
               "torch.storage._load_from_bytes is not something"),
        PICKLE("\x80\x02"
               "c\n\n.",
               ". is not something this reader calls"),
        PICKLE("\x80\x02K\1)R.", "a name was expected"),
        PICKLE("\x80\x02"
               "ccollections\nOrderedDict\nK\1R.",
               "arguments that are no tuple"),
        PICKLE("\x80\x02"
               "ccollections\nOrderedDict\nK\1\x85R.",
               "a dict made from arguments"),
        PICKLE("\x80\x02}}b.", "opcode BUILD"),
        PICKLE("\x80\x02"
               "ctorch\nSize\n)R}b.",
               "opcode BUILD"),
        PICKLE("\x80\x02"
               "ctorch\nSize\n}b.",
               "opcode BUILD"),
        PICKLE("\x80\x02"
               "ccollections\nOrderedDict\n)RK\1b.",
               "opcode BUILD"),
        PICKLE("\x80\x02"
               "ccollections\nOrderedDict\n)R(}b.",
               "opcode BUILD"),
        /* what torch.save does not write */
        PICKLE("\x80\x02I1\n.", "opcode 0x49"),
        PICKLE("\x80\x02"
               "0.",
               "opcode 0x30"),
        PICKLE("\x80\x02\xff.", "opcode 0xff"),
        PICKLE("\x80\1.", "protocol 1"),
        PICKLE("\x80\6.", "protocol 6"),
        PICKLE("\x80\x02\x8a\x09"
               "123456789.",
               "a number of more than 8 bytes"),
        /* a stack, a memo and frames that are not as they should be */
        PICKLE(".", "more or less than one value"),
        PICKLE("\x80\x02}}.", "more or less than one value"),
        PICKLE("\x80\x02}(.", "more or less than one value"),
        PICKLE("\x80\x02}..", "something behind its end"),
        PICKLE("\x80\x02K\1s.", "too few values"),
        PICKLE("\x80\x02}K\1s.", "a dict was expected"),
        PICKLE("\x80\x02\x86.", "too few values"),
        PICKLE("\x80\x02K\1(K\1\x86.", "too few values"), /* the mark is in between */
        PICKLE("\x80\x02R.", "too few values"),
        PICKLE("\x80\x02Q.", "too few values"),
        PICKLE("\x80\x02t.", "no mark"),
        PICKLE("\x80\x02u.", "no mark"),
        PICKLE("\x80\x02(u.", "a dict was expected"),
        PICKLE("\x80\x02](K\1K\1u.", "a dict was expected"),
        PICKLE("\x80\x02}(K\1u.", "a key without a value"),
        PICKLE("\x80\x02}(K\1e.", "a list was expected"),
        PICKLE("\x80\x02K\1K\1"
               "a.",
               "a list was expected"),
        PICKLE("\x80\x02q\1.", "nothing to remember"),
        PICKLE("\x80\x02}(q\1.", "nothing to remember"),
        PICKLE("\x80\x02h\1.", "a memo that was never filled"),
        PICKLE("\x80\x02}q\1h\2.", "a memo that was never filled"),
        PICKLE("\x80\x02j\xff\xff\xff\xff.", "a memo that was never filled"),
        PICKLE("\x80\x02}r\xff\xff\xff\xff.", "an impossible number in the memo"),
        PICKLE("\x80\4\x95\xff\0\0\0\0\0\0\0}.", "a frame that goes past the end"),
        PICKLE("\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\xff}.", "a frame that goes past the end"),
        PICKLE("\x80\2X\xff\xff\xff\xffx.", "ends too early"),
        PICKLE("\x80\4\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.", "ends too early"),
        PICKLE("\x80\x02"
               "cos",
               "ends too early"),
        PICKLE("\x80\x02"
               "cos\nsystem",
               "ends too early"),
        PICKLE("\x80", "ends too early"),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused_pickle(&(struct buf){.p = (char *)bad[i].p, .n = bad[i].n}, bad[i].part);
}

/* Small files that ask for much: each is refused, or read, without much time and memory. */
static void bombs(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_text(&b, "\x80\x02");
    for (int i = 0; i < 1000000; i++)
        buf_text(&b, "(");
    refused_pickle(&b, "nested deeper than 32");
    buf_free(&b);

    buf_text(&b, "\x80\x02");
    for (int i = 0; i < 1000000; i++)
        buf_text(&b, "]"); /* and as many lists, each to be put into the one before */
    refused_pickle(&b, "more than 65536 values");
    buf_free(&b);

    buf_text(&b, "\x80\x02N"); /* a tuple of twice itself, 2^100000 elements to one who unfolds it */
    for (int i = 0; i < 100000; i++)
        PK(&b, "q\0h\0\x86");
    buf_text(&b, ".");
    refused_pickle(&b, "a tuple found");
    buf_free(&b);

    buf_text(&b, "\x80\x02]"); /* a list in a list in a list */
    for (int i = 0; i < 60000; i++)
        buf_text(&b, "]");
    for (int i = 0; i < 60000; i++)
        buf_text(&b, "a");
    buf_text(&b, ".");
    refused_pickle(&b, "a list found");
    buf_free(&b);

    buf_text(&b, "\x80\x02}q\1"); /* a dict that is its own state dict */
    pk_text(&b, "state_dict");
    buf_text(&b, "h\1s.");
    refused_pickle(&b, "\"state_dict\" in the state dict: a tensor was expected, a dict found");
    buf_free(&b);

    buf_text(&b, "\x80\x02");
    for (int i = 0; i < (4 << 20); i++)
        buf_text(&b, "N");
    refused_pickle(&b, "a pickle of 4194306 bytes");
    buf_free(&b);
}

static void no_state_dict(void **state)
{
    (void)state;
    static const struct text bad[] = {
        PICKLE("\x80\x02N.", "a state dict (or a dict that holds one as \"state_dict\" and nothing else) was expected, None found"),
        PICKLE("\x80\x02\x88.", "a truth value found"),
        PICKLE("\x80\x02K\1.", "a whole number found"),
        PICKLE("\x80\x02G\0\0\0\0\0\0\0\0.", "a float found"),
        PICKLE("\x80\x02X\1\0\0\0a.", "a text found"),
        PICKLE("\x80\x02].", "a list found"),
        PICKLE("\x80\x02"
               "ctorch\nSize\n.",
               "a class found"),
        PICKLE("\x80\x02"
               "ctorch\nSize\n)R.",
               "the result of a call found"),
        PICKLE("\x80\x02K\1Q.", "a stored object found"),
        PICKLE("\x80\x02}X\5\0\0\0model}s.", "a dict of 1 entries found, one of them the dict \"model\""),
        PICKLE("\x80\x02}(X\5\0\0\0epochK\1X\12\0\0\0state_dict}u.",
               "a dict of 2 entries found, one of them the dict \"state_dict\""),
        PICKLE("\x80\x02}X\5\0\0\0epochK\1s.", "\"epoch\" in the state dict: a tensor was expected, a whole number found"),
        PICKLE("\x80\x02}X\1\0\0\0actorch\nSize\n)Rs.", "\"a\" in the state dict: a tensor was expected"),
        PICKLE("\x80\x02}X\1\0\0\0actorch._utils\n_rebuild_parameter\n)Rs.", "\"a\" in the state dict: a tensor was expected"),
        PICKLE("\x80\x02}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n)Rs.", "tensor a: 6 arguments were expected, 0 found"),
        PICKLE("\x80\x02}K\1K\1s.", "a key of the state dict is no name of a tensor but a whole number"),
        PICKLE("\x80\x02}X\2\0\0\0a\0K\1s.", "damaged text"),
        PICKLE("\x80\x02}X\2\0\0\0a\nK\1s.", "damaged text"),
        PICKLE("\x80\x02}X\2\0\0\0\xff\xffK\1s.", "damaged text"),
        PICKLE("\x80\x02}X\3\0\0\0\xed\xa0\x80K\1s.", "damaged text"), /* half a surrogate pair */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused_pickle(&(struct buf){.p = (char *)bad[i].p, .n = bad[i].n}, bad[i].part);
}

/* Cut anywhere, the archive around it being whole. */
static void truncated_at_every_length(void **state)
{
    (void)state;
    struct buf b = good_pickle();
    for (b.n--; b.n > 0; b.n--)
        refused_pickle(&b, "ends too early");
    refused_pickle(&b, "ends too early");
    buf_free(&b);
}

/* Any one bit turned, without a checksum to tell: an error, or tensors that lie inside the file. */
static void flipped_bits(void **state)
{
    (void)state;
    int accepted = 0;
    struct buf pkl = good_pickle();
    for (size_t bit = 0; bit < 8 * pkl.n; bit++) {
        struct source s;
        struct err err = {0};
        pkl.p[bit / 8] ^= (char)(1 << bit % 8);
        struct buf b = checkpoint(&pkl, (struct zip_style){.no_crc = true});
        int rc = open_bytes(&s, b.p, b.n, &err);
        if (rc != 0)
            expect_error(rc, &err, checkpoint_name);
        for (int64_t i = 0; rc == 0 && i < s.n_tensors; i++) {
            size_t at = (size_t)(s.tensors[i].data - s.maps[0].data);
            if (at > s.maps[0].size || s.tensors[i].bytes > s.maps[0].size - at)
                fail_msg("bit %zu: a tensor outside the file", bit);
        }
        if (rc == 0)
            source_close(&s);
        accepted += rc == 0;
        pkl.p[bit / 8] ^= (char)(1 << bit % 8);
        buf_free(&b);
    }
    buf_free(&pkl);
    assert_true(accepted > 0); /* the name, a smaller shape */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_pickles),           cmocka_unit_test(bombs),        cmocka_unit_test(no_state_dict),
        cmocka_unit_test(truncated_at_every_length), cmocka_unit_test(flipped_bits),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
